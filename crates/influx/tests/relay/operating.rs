//! What operators have.

use std::process::Command;

use crate::{
    fake::Fake,
    server::{Setup, address_of, until},
};

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "-f"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_and_the_page_show_the_queue_with_its_points() {
    let up = Fake::in_turn([]).await;
    let setup = Setup::new(&[up.url(), "http://127.0.0.1:1".to_owned()]);
    let socket = setup.dir.path().join("admin.sock");
    let admin =
        format!("[admin]\nsocket = {socket:?}\nlisten = \"127.0.0.1:0\"\nread_only = false\n");
    let mut relay = setup.tables(&admin).start();
    assert_eq!(relay.write("db=d", "cpu,h=a v=1 1").status, 204);
    until("a hint", || (relay.pending(2) == 1).then_some(()));
    let socket = socket.to_str().unwrap();
    let on_socket = |path: &str, more: &[&str]| {
        let url = format!("http://localhost{path}");
        curl(&[&["--unix-socket", socket, &url], more].concat())
    };
    let nodes: serde_json::Value = serde_json::from_str(&on_socket("/v1/nodes", &[])).unwrap();
    assert!(nodes.to_string().contains("db-2"), "{nodes}");
    let hints = on_socket("/v1/nodes/2/hints", &[]);
    assert!(
        hints.contains("cpu,h=a v=1 1") && hints.contains("\"database\":\"d\""),
        "{hints}"
    );
    let header = "x-hinted-handoff: 1";
    on_socket(
        "/v1/nodes/2/pause",
        &["-H", header, "--json", "{\"pause\":\"until_restart\"}"],
    );

    let page = relay.until_logged("the admin interface is served address=http://");
    let page = page.replace("address=http://", "address=");
    let page = curl(&[&format!("http://{}/", address_of(&page))]);
    assert!(page.contains("hh-relay") && page.contains("db-2"), "{page}");
    assert!(relay.stop().success());
    assert!(!std::path::Path::new(socket).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_an_error_that_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setup = Setup::new(&["http://127.0.0.1:1".to_owned()]);
    let file = setup.write();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("127.0.0.1:0", &address.to_string())).unwrap();
    let output = crate::server::command()
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let wanted = format!("hh-relay: tcp {address} cannot be listened at: Address already in use");
    assert!(told.contains(&wanted), "{told}");
    assert!(!setup.dir.path().join("hints").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_may_be_json() {
    let up = Fake::in_turn([]).await;
    let setup = Setup::new(&[up.url()]).tables("[log]\nformat = \"json\"\nlevel = \"info\"\n");
    let file = setup.write();
    let mut child = crate::server::command()
        .arg("--config")
        .arg(file)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["fields"]["message"], "hh-relay begins");
    child.kill().unwrap();
    child.wait().unwrap();
}
