//! A server for guests, in the process of the test. It does what it is asked to, however bad.

use std::io;
use std::sync::{Arc, Mutex};

use rowmill::grants::Resolve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The first byte of who wants to speak TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// It ends when it is dropped.
pub struct Web {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Web {
    pub async fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let asked = Arc::clone(&asked);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // Who hangs up early has his reasons.
                    tokio::spawn(serve(stream, Arc::clone(&asked)));
                }
            }
        });
        Web { port, asked, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// The first lines of the requests that came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        if head == [TLS_HANDSHAKE] {
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let first = head.lines().next().unwrap_or_default().to_owned();
    asked.lock().unwrap().push(first.clone());
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (what, argument) = path.split_once('?').unwrap_or((&path, ""));
    match what {
        "redirect" => stream.write_all(format!("HTTP/1.1 302 Found\r\nLocation: {argument}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?,
        // Neither answers nor hangs up.
        "silent" => std::future::pending().await,
        "slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome").await?;
            std::future::pending::<()>().await;
        }
        "endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 8 << 10]).await?;
            }
        }
        "huge" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await?,
        "headers" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0..100_000 {
                stream.write_all(format!("x-{number}: {number}\r\n").as_bytes()).await?;
            }
            stream.write_all(b"\r\n").await?;
        }
        "nonsense" => stream.write_all(b"\0\x01\x02 no HTTP at all\r\n\r\n").await?,
        // Reads and never answers.
        "swallow" => while stream.read(&mut [0; 1024]).await? > 0 {},
        "cut" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome").await?,
        "echo" => {
            let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let body = match length {
                Some(length) => {
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await?;
                    String::from_utf8_lossy(&body).into_owned()
                }
                None => String::new(),
            };
            let answer = format!("{head}{body}");
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).as_bytes()).await?;
        }
        "" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await?,
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
    }
    stream.shutdown().await
}

/// Names whose addresses a test says, a list for each look; the last one stays.
#[derive(Default)]
pub struct Names(Mutex<Vec<(String, Looks)>>, Mutex<u32>);

/// The addresses of each look.
type Looks = Vec<Vec<&'static str>>;

impl Names {
    pub fn new(names: &[(&str, &[&[&'static str]])]) -> Arc<Names> {
        let names = names.iter().map(|(name, looks)| ((*name).to_owned(), looks.iter().map(|look| look.to_vec()).collect()));
        Arc::new(Names(Mutex::new(names.collect()), Mutex::default()))
    }

    /// How often a name was looked up.
    pub fn looks(&self) -> u32 {
        *self.1.lock().unwrap()
    }
}

#[async_trait::async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<std::net::IpAddr>> {
        *self.1.lock().unwrap() += 1;
        let mut names = self.0.lock().unwrap();
        let (_, looks) = names.iter_mut().find(|(name, _)| name == host).ok_or(io::ErrorKind::NotFound)?;
        let look = if looks.len() > 1 { looks.remove(0) } else { looks[0].clone() };
        Ok(look.into_iter().map(|address| address.parse().unwrap()).collect())
    }
}
