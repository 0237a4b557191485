//! Dialling what is there, what is not, and what is somebody else.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

async fn why(dialer: &Dialer, address: &str) -> String {
    let way = dialer.way(address).expect("an address");
    match way.open().await {
        Err(error) => error.to_string(),
        Ok(mut stream) => {
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer).await {
                Err(error) => error.to_string(),
                Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
            }
        }
    }
}

#[tokio::test]
async fn a_plain_client_is_told_that_a_node_speaks_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let alert = async {
        let (mut stream, _) = listener.accept().await.expect("somebody dials");
        stream.write_all(&[0x15, 3, 3, 0, 2, 2, 10]).await.expect("written");
        stream
    };
    let (why, _stream) = tokio::join!(async { why(&Dialer::plain(), &address).await }, alert);
    assert!(why.contains("the node speaks TLS"), "{why}");
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    // "localhost" may have an address of IPv6 in front, where nobody listens.
    connect("localhost", port).await.expect("somebody listens");
    drop(listener);
    connect("localhost", port).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn a_unix_socket_is_dialled_by_its_path() {
    let dir = std::env::temp_dir().join(format!("raft-host-dial-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("s");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let way = Dialer::plain().way(&format!("unix:{}", path.display())).expect("an address");
    way.knock().await.expect("it is there");
    drop(listener);
    let long = format!("unix:/{}", "x".repeat(200));
    let way = Dialer::plain().way(&long).expect("an address");
    let words = way.knock().await.expect_err("too long").to_string();
    assert!(words.contains("at most 107 bytes"), "{words}");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn tls_without_anybody_to_trust_is_refused_at_once() {
    let refused = Dialer::plain().way("https://a:1").expect_err("no CA").to_string();
    assert!(refused.contains("--tls-ca"), "{refused}");
}
