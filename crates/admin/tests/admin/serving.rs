//! The sockets: open to whom they are meant for, and gone at the end.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use futures_util::FutureExt;
use hinted_handoff_admin::{Address, ServeError, Server, Settings, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
};

use crate::common::*;

/// A part of every Debian.
const PERL: &str = "/usr/bin/perl";
const GRACE: Duration = Duration::from_secs(20);

async fn on_socket(host: &Host, path: &Path) -> Result<Server, ServeError> {
    serve(
        &host.handoff,
        Settings::default(),
        Address::Unix(path.to_owned()),
    )
    .await
}

/// Asks by HTTP/1.0, where an answer ends with its connection.
async fn ask(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    path: &str,
    host: &str,
) -> String {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn without_a_runtime_nothing_is_served_and_that_is_said() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = runtime.block_on(Host::start());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    for at in [
        Address::Tcp("127.0.0.1:0".parse().unwrap()),
        Address::Unix(path.clone()),
    ] {
        let served = serve(&host.handoff, Settings::default(), at).now_or_never();
        assert!(
            matches!(served, Some(Err(ServeError::NoRuntime(_)))),
            "{served:?}"
        );
    }
    assert_eq!(names(dir.path()), [""; 0], "nothing was bound");
    runtime.block_on(host.handoff.shutdown()).unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_this_users_alone_and_gone_at_the_end() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let server = on_socket(&host, &path).await.unwrap();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.address(), &Address::Unix(path.clone()));
    let answer = ask(
        UnixStream::connect(&path).await.unwrap(),
        "/v1/status",
        "localhost",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    server.shutdown(GRACE).await.unwrap();
    assert_eq!(names(dir.path()), [""; 0]);

    let server = on_socket(&host, &path).await.unwrap();
    drop(server);
    for _ in 0..2_000 {
        if names(dir.path()).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        names(dir.path()),
        [""; 0],
        "a dropped server leaves nothing behind"
    );
    host.handoff.shutdown().await.unwrap();
}

/// Watches the path from another thread: whenever the socket is there, it has its mode.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_has_its_mode_from_its_first_moment() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watching = {
        let (path, stop) = (path.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut seen = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(found) = fs::symlink_metadata(&path) {
                    assert_eq!(found.permissions().mode() & 0o777, 0o600);
                    seen += 1;
                }
            }
            seen
        })
    };
    for _ in 0..50 {
        on_socket(&host, &path)
            .await
            .unwrap()
            .shutdown(GRACE)
            .await
            .unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(watching.join().unwrap() > 0, "nobody looked at it");
    host.handoff.shutdown().await.unwrap();
}

/// As root there is another user to be: `nobody` may look into the directory, and not connect.
#[tokio::test]
async fn another_users_process_is_refused_by_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let is_root = fs::metadata(dir.path()).unwrap().uid() == 0;
    let has_tools = Path::new("/usr/bin/setpriv").exists() && Path::new(PERL).exists();
    if !is_root || !has_tools {
        assert!(std::env::var("CI").is_err(), "needs root, setpriv and perl");
        println!("SKIPPED: needs root, setpriv and perl");
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host::start().await;
    let path = dir.path().join("admin.sock");
    let server = on_socket(&host, &path).await.unwrap();
    let connect = "socket(S, PF_UNIX, SOCK_STREAM, 0) or die; connect(S, pack_sockaddr_un($ARGV[0])) or die $!";
    let mut as_nobody = tokio::process::Command::new("setpriv");
    as_nobody.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        PERL,
        "-MSocket",
        "-e",
        connect,
    ]);
    let refused = as_nobody.arg(&path).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("Permission denied"),
        "{said}"
    );
    // The same program gets in as this user.
    let mut as_root = tokio::process::Command::new(PERL);
    let taken = as_root
        .args(["-MSocket", "-e", connect])
        .arg(&path)
        .output()
        .await
        .unwrap();
    assert!(
        taken.status.success(),
        "{}",
        String::from_utf8_lossy(&taken.stderr)
    );
    server.shutdown(GRACE).await.unwrap();
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    // As a process leaves it that was killed.
    drop(UnixListener::bind(&path).unwrap());
    fs::write(dir.path().join("admin.sock.lock"), "").unwrap();
    let server = on_socket(&host, &path).await.unwrap();
    let second = on_socket(&host, &path).await;
    assert!(
        matches!(second, Err(ServeError::InUse { .. })),
        "{second:?}"
    );
    ask(
        UnixStream::connect(&path).await.unwrap(),
        "/live",
        "localhost",
    )
    .await;
    server.shutdown(GRACE).await.unwrap();

    // Of another program, which takes no lock.
    let other = UnixListener::bind(&path).unwrap();
    let third = on_socket(&host, &path).await;
    assert!(matches!(third, Err(ServeError::InUse { .. })), "{third:?}");
    assert!(path.exists());
    drop(other);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let fourth = on_socket(&host, &path).await;
    assert!(
        matches!(fourth, Err(ServeError::NoSocket { .. })),
        "{fourth:?}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(names(dir.path()), ["admin.sock"]);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_begin_at_once_one_serves() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    for _ in 0..40 {
        let begin = || {
            let (handoff, path) = (host.handoff.clone(), path.clone());
            tokio::spawn(
                async move { serve(&handoff, Settings::default(), Address::Unix(path)).await },
            )
        };
        let all: Vec<_> = (0..8).map(|_| begin()).collect();
        let mut serving = Vec::new();
        for begun in all {
            match begun.await.unwrap() {
                Ok(server) => serving.push(server),
                Err(error) => assert!(matches!(error, ServeError::InUse { .. }), "{error}"),
            }
        }
        assert_eq!(serving.len(), 1);
        ask(
            UnixStream::connect(&path).await.unwrap(),
            "/live",
            "localhost",
        )
        .await;
        serving.remove(0).shutdown(GRACE).await.unwrap();
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn tcp_is_for_this_machine_and_by_its_names() {
    let host = Host::start().await;
    for elsewhere in ["0.0.0.0:0", "10.0.0.1:0", "[::]:0"] {
        let refused = serve(
            &host.handoff,
            Settings::default(),
            Address::Tcp(elsewhere.parse().unwrap()),
        )
        .await;
        assert!(
            matches!(refused, Err(ServeError::NotLoopback { .. })),
            "{refused:?}"
        );
    }
    let at = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let server = serve(&host.handoff, Settings::default(), at).await.unwrap();
    let Address::Tcp(address) = *server.address() else {
        panic!("{server:?}");
    };
    let connect = || async { TcpStream::connect(address).await.unwrap() };
    for own in [address.to_string(), format!("localhost:{}", address.port())] {
        let answer = ask(connect().await, "/v1/status", &own).await;
        assert!(
            answer.starts_with("HTTP/1.0 200") && answer.contains("\"read_only\":true"),
            "{answer}"
        );
    }
    for foreign in ["evil.example", "localhost:1", "127.0.0.1"] {
        let answer = ask(connect().await, "/v1/status", foreign).await;
        assert!(answer.starts_with("HTTP/1.0 403"), "{answer}");
    }
    server.shutdown(GRACE).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_waits_and_cuts_off_what_hangs() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    host.hint(AWAY, &["a"]).await;
    let server = on_socket(&host, &path).await.unwrap();
    let events = tokio::spawn(ask(
        UnixStream::connect(&path).await.unwrap(),
        "/v1/events",
        "localhost",
    ));
    let mut waiting = UnixStream::connect(&path).await.unwrap();
    let body = "{\"timeout_ms\": 300000}";
    let drain = format!(
        "POST /v1/nodes/2/drain HTTP/1.0\r\nx-hinted-handoff: 1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    waiting.write_all(drain.as_bytes()).await.unwrap();
    // An idle connection is no reason to wait.
    let _idle = UnixStream::connect(&path).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.shutdown(GRACE).await.unwrap();
    assert!(events.await.unwrap().starts_with("HTTP/1.0 200"));
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("urn:hinted-handoff:shut-down"), "{answer}");

    let server = on_socket(&host, &path).await.unwrap();
    let mut hangs = UnixStream::connect(&path).await.unwrap();
    // It has begun a request, and does not go on.
    hangs
        .write_all(b"POST /v1/sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cut = server.shutdown(Duration::from_millis(50)).await;
    assert!(
        matches!(cut, Err(ServeError::CutOff { connections: 1, .. })),
        "{cut:?}"
    );
    assert!(!path.exists());
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn that_its_runtime_is_gone_is_heard_once() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (handoff, at) = (host.handoff.clone(), Address::Unix(path.clone()));
    let begun = other.spawn(async move { serve(&handoff, Settings::default(), at).await });
    let mut server = begun.await.unwrap().unwrap();
    other.shutdown_background();
    let ended = server.ended().await;
    assert!(matches!(ended, Err(ServeError::Ended { .. })), "{ended:?}");
    server.ended().await.unwrap();
    server.shutdown(GRACE).await.unwrap();
    assert!(!path.exists());
    host.handoff.shutdown().await.unwrap();
}
