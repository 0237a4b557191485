//! Certificates that fit and that do not, and new ones while a node runs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use raft_host_proto::dial::{ClientTls, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::certs::{Authority, Host, Issued, Validity};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn valid() -> Validity {
    Validity::days(SystemTime::now(), 90).expect("days")
}

fn authority() -> Authority {
    // Longer than what it issues, however long that takes.
    let valid = Validity::days(SystemTime::now(), 91).expect("days");
    Authority::new(CLUSTER, valid).expect("randomness")
}

fn node(authority: &Authority, cluster: ClusterId, id: u64) -> Issued {
    let hosts = [Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    authority.issue_node(cluster, NodeId(id), &hosts, valid()).expect("issued")
}

fn write(dir: &Path, authority: &Authority, issued: &Issued) {
    std::fs::write(dir.join("ca.pem"), authority.certificate_pem()).expect("written");
    std::fs::write(dir.join("certificate.pem"), &issued.certificate).expect("written");
    std::fs::write(dir.join("key.pem"), issued.key.pem()).expect("written");
}

fn folder(authority: &Authority, issued: &Issued) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), authority, issued);
    dir
}

fn config(dir: &Path) -> TlsConfig {
    let mut config = TlsConfig::default();
    config.use_folder(dir);
    config
}

fn open(dir: &Path) -> Arc<Tls> {
    Tls::open(&config(dir)).expect("good files").expect("not off")
}

fn why(dir: &Path) -> String {
    Tls::open(&config(dir)).expect_err("bad files").to_string()
}

/// Accepts one connection; what came of the handshake.
async fn serve(tls: Arc<Tls>) -> (String, tokio::task::JoinHandle<Result<(), HandshakeFailure>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("somebody dials");
        let shaken = tls.shake_hands(Face::Grpc, stream).await;
        let mut stream = shaken.map_err(|(error, _)| HandshakeFailure::of(&error))?.stream;
        stream.write_all(b"hello").await.map_err(|_| HandshakeFailure::Gone)?;
        // Until the other side has seen it.
        let _ = stream.read(&mut [0]).await;
        Ok(())
    });
    (address, serving)
}

/// "hello", or why there is none.
async fn greeted(way: &Way) -> Result<(), String> {
    let mut stream = way.open().await.map_err(|error| error.to_string())?;
    let mut greeting = [0; 400];
    let length = stream.read(&mut greeting).await.map_err(|error| error.to_string())?;
    match &greeting[..length] {
        b"hello" => Ok(()),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}

#[tokio::test]
async fn nodes_of_a_cluster_find_each_other_and_nobody_else() {
    let authority = authority();
    let (one, two) = (node(&authority, CLUSTER, 1), node(&authority, CLUSTER, 2));
    let (one, two) = (folder(&authority, &one), folder(&authority, &two));
    let (one, two) = (open(one.path()), open(two.path()));
    let dialer = two.dialer();
    let (address, _serving) = serve(Arc::clone(&one)).await;
    let way = dialer.to_node(NodeId(1)).way(&address).expect("an address");
    assert_eq!(greeted(&way).await, Ok(()));
    let (address, _serving) = serve(Arc::clone(&one)).await;
    let way = dialer.to_node(NodeId(3)).way(&address).expect("an address");
    let refused = greeted(&way).await.expect_err("it is node 1");
    assert!(refused.contains("certificate of node 1") && refused.contains("node 3"), "{refused}");
    let elsewhere = ClusterId([8; 16]);
    let other = node(&authority, elsewhere, 1);
    let other = folder(&authority, &other);
    let (address, _serving) = serve(open(other.path())).await;
    let way = dialer.to_member().way(&address).expect("an address");
    let refused = greeted(&way).await.expect_err("another cluster's");
    assert!(refused.contains(&elsewhere.to_string()), "{refused}");
}

#[tokio::test]
async fn both_sides_say_what_is_wrong() {
    let (authority, other) = (authority(), authority());
    let files = folder(&authority, &node(&authority, CLUSTER, 1));
    let tls = open(files.path());
    let client = |authority: &Authority, cluster, validity| {
        let name = "alice".parse().expect("a name");
        authority.issue_client(cluster, name, validity).expect("issued")
    };
    let expired = Validity { not_before: 1_000_000_000, not_after: 1_000_000_060 };
    let trusted = authority.certificate_pem().as_bytes().to_vec();
    let trusting =
        |pem: &[u8]| ClientTls::trusting(raft_host_proto::dial::Pem::Bytes(pem.to_vec()));
    let showing = |issued: &Issued| {
        let certificate = issued.certificate.clone().into_bytes();
        let key = issued.key.pem().as_bytes().to_vec();
        let pem = raft_host_proto::dial::Pem::Bytes;
        trusting(&trusted).showing(pem(certificate), pem(key))
    };
    let good = showing(&client(&authority, CLUSTER, valid()));
    for (client, words, counted) in [
        (Some(good), "", None),
        (
            Some(trusting(&trusted)),
            "without a client certificate",
            Some(HandshakeFailure::NoCertificate),
        ),
        (
            Some(trusting(other.certificate_pem().as_bytes())),
            "not of a CA that this client trusts",
            Some(HandshakeFailure::RefusedByClient),
        ),
        (
            Some(showing(&client(&other, CLUSTER, valid()))),
            "does not trust the CA",
            Some(HandshakeFailure::UnknownCa),
        ),
        (
            Some(showing(&client(&authority, CLUSTER, expired))),
            "has expired",
            Some(HandshakeFailure::Expired),
        ),
        (
            Some(showing(&client(&authority, ClusterId([9; 16]), valid()))),
            "refuses this client's certificate",
            Some(HandshakeFailure::BadCertificate),
        ),
        (None, "the node speaks TLS", Some(HandshakeFailure::NotTls)),
    ] {
        let (address, serving) = serve(Arc::clone(&tls)).await;
        let dialer = Dialer::of(client.as_ref()).expect("usable");
        let way = dialer.way(&address).expect("an address");
        let came = match client {
            // The preface of HTTP/2, as a client without TLS sends it.
            None => {
                let mut stream = way.open().await.expect("a port");
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.expect("it is told");
                Err(String::from_utf8_lossy(&said).into_owned())
            }
            Some(_) => greeted(&way).await,
        };
        match counted {
            None => assert_eq!(came, Ok(())),
            Some(counted) => {
                let said = came.expect_err(words);
                assert!(said.contains(words), "{words}: {said}");
                assert_eq!(serving.await.expect("no panic"), Err(counted), "{words}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_speaks_no_tls_is_known_by_that() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let authority = authority();
    let pem = raft_host_proto::dial::Pem::Bytes(authority.certificate_pem().as_bytes().to_vec());
    let dialer = Dialer::of(Some(&ClientTls::trusting(pem))).expect("usable");
    let way = dialer.way(&address).expect("an address");
    let settings = async {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.expect("somebody dials");
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("sent");
        stream
    };
    let (opened, _stream) = tokio::join!(way.open(), settings);
    let said = opened.expect_err("no TLS").to_string();
    assert!(said.contains("speaks no TLS"), "{said}");
}

#[test]
fn files_that_do_not_fit_are_refused_with_their_names() {
    let (ours, other) = (authority(), authority());
    let (one, two) = (node(&ours, CLUSTER, 1), node(&ours, CLUSTER, 2));
    let files = folder(&other, &one);
    assert!(why(files.path()).contains("not accepted by the CAs in"), "{}", why(files.path()));
    let files = folder(&ours, &one);
    std::fs::write(files.path().join("key.pem"), two.key.pem()).expect("written");
    assert!(why(files.path()).contains("cannot be used together"), "{}", why(files.path()));
    std::fs::remove_file(files.path().join("key.pem")).expect("removed");
    assert!(why(files.path()).contains("cannot read"), "{}", why(files.path()));
    std::fs::write(files.path().join("key.pem"), "nonsense").expect("written");
    assert!(why(files.path()).contains("no private key"), "{}", why(files.path()));
    let name = "alice".parse().expect("a name");
    let client = ours.issue_client(CLUSTER, name, valid()).expect("issued");
    let files = folder(&ours, &client);
    assert!(why(files.path()).contains("not of a node"), "{}", why(files.path()));
    let tls = open(folder(&ours, &one).path());
    assert_eq!(tls.check_address("127.0.0.1:7400"), Ok(()));
    let refused = tls.check_address("10.0.0.1:7400").expect_err("another address");
    assert!(refused.contains("--address 10.0.0.1"), "{refused}");
}

#[tokio::test]
async fn new_files_are_taken_and_broken_ones_are_an_alarm() {
    let (old, new) = (authority(), authority());
    let issued = node(&old, CLUSTER, 1);
    let files = folder(&old, &issued);
    let tls = open(files.path());
    let news = tls.dialer().news().expect("it hears of them");
    let before = tls.report();
    assert_eq!((before.alarm, before.reloads), (None, 0));
    // Another node's, by mistake.
    write(files.path(), &old, &node(&old, CLUSTER, 2));
    tls.reload();
    let broken = tls.report();
    let alarm = broken.alarm.expect("a person should look");
    assert!(alarm.contains("of node 2") && alarm.contains("older ones are in use"), "{alarm}");
    assert_eq!((broken.reload_failures, broken.fingerprint), (1, before.fingerprint));
    assert!(!news.has_changed().expect("it lives"));
    write(files.path(), &new, &node(&new, CLUSTER, 1));
    tls.reload();
    let renewed = tls.report();
    assert_eq!((renewed.alarm, renewed.reloads), (None, 1));
    assert_ne!(renewed.fingerprint, before.fingerprint);
    assert!(renewed.reloaded_ms.is_some() && news.has_changed().expect("it lives"));
    // What was opened before dials with the new ones.
    let peer = folder(&new, &node(&new, CLUSTER, 2));
    let (address, _serving) = serve(open(peer.path())).await;
    let way = tls.dialer().to_node(NodeId(2)).way(&address).expect("an address");
    assert_eq!(greeted(&way).await, Ok(()));
}

#[test]
fn a_certificate_that_expires_soon_is_an_alarm() {
    let authority = authority();
    let hosts = [Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let issue = |validity| {
        let issued = authority.issue_node(CLUSTER, NodeId(1), &hosts, validity).expect("issued");
        open(folder(&authority, &issued).path()).report().alarm
    };
    let days = |days| Validity::days(SystemTime::now(), days).expect("days");
    assert_eq!(issue(days(60)), None);
    assert!(issue(days(10)).expect("soon").contains("expires in"));
    let past = Validity { not_before: 1_000_000_000, not_after: 1_000_000_060 };
    assert!(issue(past).expect("over").contains("has expired"));
}
