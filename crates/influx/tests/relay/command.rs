//! The command line.

use std::{fs, process::Output};

use crate::server::{Setup, command};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The code, what it printed, and what it said of errors.
fn ended(output: Output) -> (i32, String, String) {
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn check(setup: &Setup) -> (i32, String, String) {
    let file = setup.write();
    ended(
        command()
            .arg("--check")
            .arg("--config")
            .arg(file)
            .output()
            .unwrap(),
    )
}

fn setup() -> Setup {
    Setup::new(&[
        "http://127.0.0.1:1".to_owned(),
        "http://127.0.0.1:2".to_owned(),
    ])
}

#[test]
fn a_check_says_what_would_be_done_and_does_nothing() {
    let setup = setup().tables(
        "[admin]\nsocket = \"/run/x.sock\"\n[[users]]\nname = \"a\"\npassword = \"s3cret\"\n",
    );
    let (code, told, errors) = check(&setup);
    assert_eq!((code, errors.as_str()), (0, ""));
    for part in [
        "takes writes at http://127.0.0.1:0\n  from 1 users\n",
        "writes to 2 servers, at consistency any\n  1 (db-1) http://127.0.0.1:1, as nobody\n",
        "ordering strict, answer accounted\n",
        "is operated at unix:/run/x.sock, read only\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("s3cret"));
    assert!(!setup.dir.path().join("hints").exists());
}

#[test]
fn a_check_of_wrong_settings_names_the_line() {
    for (setup, part) in [
        (
            setup().top("consistency = \"most\"\n"),
            "relay.toml: line 1: \"most\" is no consistency",
        ),
        (
            setup().http("max_connections = 0\n"),
            "max_connections: between 1 and 65536",
        ),
        (
            setup().http("max_bodies = 1\n"),
            "unknown field `max_bodies`",
        ),
        (
            setup().tables("[[nodes]]\nid = 1\nurl = \"http://127.0.0.1:3\"\n"),
            "two nodes have the id 1",
        ),
        (
            setup().tables("[[nodes]]\nid = 3\nurl = \"127.0.0.1\"\n"),
            "this is no url",
        ),
        (
            setup().tables("[http.tls]\ncert = \"/nowhere\"\nkey = \"/nowhere\"\n"),
            "/nowhere cannot be read",
        ),
        (
            setup().tables("[[users]]\nname = \"a\"\npassword_file = \"/nowhere\"\n"),
            "the password of user \"a\", /nowhere, cannot be read: No such file",
        ),
        (Setup::new(&[]), "there is no [[nodes]]"),
    ] {
        let (code, told, errors) = check(&setup);
        assert_eq!((code, told.as_str()), (2, ""), "{errors}");
        assert!(errors.contains(part), "{part}: {errors}");
        assert!(!setup.dir.path().join("hints").exists());
    }
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let none = ended(
        command()
            .args(["--config", "/nowhere/x.toml"])
            .output()
            .unwrap(),
    );
    assert_eq!(none.0, 2);
    assert!(
        none.2
            .contains("/nowhere/x.toml: the file cannot be read: No such file"),
        "{}",
        none.2
    );
    let nothing = ended(command().output().unwrap());
    assert_eq!(nothing.0, 2);
    assert!(nothing.2.contains("--config"), "{}", nothing.2);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = setup().write();
    // It was removed with its directory.
    let gone = command()
        .arg("--check")
        .env("HH_RELAY_CONFIG", &file)
        .output()
        .unwrap();
    assert!(text(&gone.stderr).contains("cannot be read"));
    let setup = setup();
    let file = setup.write();
    let told = command()
        .arg("--check")
        .env("HH_RELAY_CONFIG", file)
        .output()
        .unwrap();
    assert!(told.status.success());
}

#[test]
fn a_password_that_others_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let setup = setup().tables("[[users]]\nname = \"a\"\npassword = \"s3cret\"\n");
    let file = setup.write();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = command()
        .arg("--check")
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    let (code, _, errors) = ended(output);
    assert_eq!(code, 0);
    assert!(
        errors.contains("relay.toml may be read by other users"),
        "{errors}"
    );
}

#[test]
fn the_example_is_printed_and_is_right() {
    let (code, example, _) = ended(command().arg("example").output().unwrap());
    assert_eq!(code, 0);
    let setup = setup();
    let file = setup.dir.path().join("example.toml");
    fs::write(&file, example).unwrap();
    let output = command()
        .arg("--check")
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    assert_eq!(ended(output).0, 0);
}

#[test]
fn a_file_of_influxdb_relay_is_converted_to_one_that_is_right() {
    let setup = setup();
    let theirs = setup.dir.path().join("theirs.toml");
    let text = "[[http]]\nname = \"a\"\nbind-addr = \"127.0.0.1:9096\"\noutput = [\n\
                { name=\"b\", location=\"http://127.0.0.1:8086/write\", buffer-size-mb=100 },\n]\n";
    fs::write(&theirs, text).unwrap();
    let (code, ours, _) = ended(command().arg("convert").arg(&theirs).output().unwrap());
    assert_eq!(code, 0);
    let file = setup.dir.path().join("ours.toml");
    fs::write(&file, ours).unwrap();
    let output = command()
        .arg("--check")
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    assert_eq!(ended(output).0, 0);

    fs::write(&theirs, "[[http]]\nbind = 1\n").unwrap();
    let (code, ours, errors) = ended(command().arg("convert").arg(&theirs).output().unwrap());
    assert_eq!((code, ours.as_str()), (2, ""));
    assert!(errors.contains("theirs.toml: line "), "{errors}");
}
