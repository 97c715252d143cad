//! A TCP peer that answers each connection by a script. It speaks no HTTP of its own: the bytes are the test's.

use std::time::{Duration, Instant, SystemTime};

use secrecy::SecretString;
use sluice_core::grant::{Grant, Moment};
use sluice_zoho::{AccessToken, Client, DataCenter, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use url::Url;

/// What the peer does with one connection.
pub(crate) enum Act {
    /// Reads the request, then sends these bytes and closes.
    Say(Vec<u8>),
    /// Reads the request, then closes without a word.
    Drop,
    /// Reads the request, then keeps the connection open and silent.
    Hang,
}

/// An HTTP/1.1 answer with a JSON body.
pub(crate) fn json(status: u16, headers: &str, body: &str) -> Act {
    raw(status, &format!("Content-Type: application/json\r\n{headers}"), body)
}

/// An HTTP/1.1 answer with any body.
pub(crate) fn raw(status: u16, headers: &str, body: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes())
}

/// The peer's address, and every request it saw, whole.
pub(crate) struct Peer {
    pub(crate) url: Url,
    seen: mpsc::UnboundedReceiver<String>,
}

impl Peer {
    /// Plays the acts, one a connection, then refuses further ones.
    pub(crate) async fn playing(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (saw, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for act in acts {
                let (mut stream, _) = listener.accept().await.unwrap();
                saw.send(read_request(&mut stream).await).ok();
                match act {
                    Act::Say(bytes) => {
                        stream.write_all(&bytes).await.ok();
                        stream.shutdown().await.ok();
                    }
                    Act::Drop => drop(stream),
                    Act::Hang => silent.push(stream),
                }
            }
            saw.closed().await;
        });
        Self { url, seen }
    }

    /// The requests seen so far.
    pub(crate) fn seen(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// The only request seen.
    pub(crate) fn only(&mut self) -> String {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// A client whose accounts server and API host are this peer.
    pub(crate) fn client(&self) -> Client {
        client(&self.url)
    }
}

/// A client of the peer at `url`, with a time-out short enough for tests.
pub(crate) fn client(url: &Url) -> Client {
    Client::new(Settings {
        data_center: DataCenter::Eu,
        accounts_url: Some(url.clone()),
        api_url: Some(url.clone()),
        client_id: "1000.CLIENT".to_owned(),
        client_secret: SecretString::from("client-secret-value"),
        organization_id: Some("927270289".to_owned()),
        request_timeout: Duration::from_millis(600),
    })
    .unwrap()
}

/// A grant that is good for two seconds.
pub(crate) fn grant() -> Grant {
    Grant::issued(7, Moment::now(), Duration::from_secs(2))
}

/// A grant whose deadline has passed.
pub(crate) fn late_grant() -> Grant {
    Grant::issued(8, Moment::shown(Instant::now().checked_sub(Duration::from_secs(3)).unwrap(), SystemTime::now()), Duration::from_secs(2))
}

/// A token in Zoho's shape, made here so that no scanner takes the source for a leak.
pub(crate) fn token_text() -> String {
    format!("1000.{}.{}", "0a1b2c3d".repeat(4), "deadbeef".repeat(4))
}

pub(crate) fn token() -> AccessToken {
    AccessToken::new(SecretString::from(token_text()), Some("https://www.zohoapis.eu".to_owned()))
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            if body.len() >= length {
                return text.into_owned();
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return text.into_owned(),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
