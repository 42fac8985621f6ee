//! Where the guest is: all that its app is granted, and beside it what is not, which must be the same after each input.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rowmill::blobs::Blobs;
use rowmill::grants::{GrantSettings, Granter, Resolve};
use rowmill::model::{DirectoryGrant, Grants, HttpGrant, KeyValueGrant, ObjectsGrant, SqlGrant};
use rowmill::sandbox::Capabilities;
use tempfile::TempDir;

use crate::fuzz::calls::Words;
use crate::fuzz::scratch;

pub const APP: &str = "fuzz";
/// Nobody listens there.
const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:1/nothing";

pub struct Place {
    root: TempDir,
    grants: Grants,
    settings: GrantSettings,
    words: Words,
    /// What the web answers next.
    answer: Arc<Mutex<Vec<u8>>>,
    /// All that is not the app's.
    others: Files,
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Place {
    pub fn new() -> Place {
        let root = scratch();
        let at = |name: &str| root.path().join(name);
        for (file, text) in [
            ("granted/a.txt", "mine"),
            ("readable/b.txt", "to be read"),
            ("beside/keep.txt", "not to be touched"),
            ("objects/apps/other/x.json", "theirs"),
            ("objects/compiled/x", "the runtime's"),
            ("secrets/word", "a secret word\n"),
            ("databases/bank", &std::env::var("DATABASE_URL").unwrap_or_else(|_| NO_DATABASE.to_owned())),
        ] {
            write(&at(file), text);
        }
        let answer = Arc::new(Mutex::new(Vec::new()));
        let port = serve(Arc::clone(&answer)).expect("there is a free port");
        let grants = grants(root.path(), port);
        grants.check().expect("the grants are good");
        let settings = GrantSettings {
            secrets_directory: Some(at("secrets")),
            databases_directory: Some(at("databases")),
            redis_url: None,
            objects: Some(Blobs::local(&at("objects")).expect("a directory can be made")),
            resolver: Arc::new(Loopback),
        };
        let mut place = Place { root, grants, settings, words: words(port), answer, others: Files::new() };
        place.others = place.others_now();
        place
    }

    /// Texts that lead somewhere here.
    pub fn words(&self) -> &Words {
        &self.words
    }

    pub fn answer_with(&self, bytes: &[u8]) {
        bytes.clone_into(&mut self.answer.lock().expect("nobody panics while holding it"));
    }

    /// Everything, and keys without values.
    pub async fn capabilities(&self) -> Capabilities {
        Granter::new(self.settings.clone()).capabilities(APP, &self.grants).await.expect("all is there")
    }

    /// Nothing of others was changed. What the app made goes.
    pub fn check_and_clear(&self) {
        assert_eq!(self.others_now(), self.others, "what is not the app's was changed");
        let granted = self.root.path().join("granted");
        if fs::read_dir(&granted).map_or(0, Iterator::count) != 1 || fs::read(granted.join("a.txt")).ok().as_deref() != Some(b"mine") {
            fs::remove_dir_all(&granted).expect("it is ours");
            write(&granted.join("a.txt"), "mine");
        }
        let objects = self.objects();
        if objects.exists() {
            fs::remove_dir_all(objects).expect("it is ours");
        }
    }

    fn objects(&self) -> PathBuf {
        self.root.path().join("objects/apps").join(APP)
    }

    fn others_now(&self) -> Files {
        let mut files = Files::new();
        collect(self.root.path(), &[self.root.path().join("granted"), self.objects()], &mut files).expect("it is ours");
        files
    }
}

/// Paths, keys, names and whatever else the host knows, by the parameters of functions that take them.
const WORDS: [(&[&str], &[&str]); 9] = [
    (
        &["path", "old-path", "new-path"],
        &["", "a.txt", "b.txt", "sub", "sub/c.txt", "link", ".", "..", "/", "../beside", "../beside/keep.txt", "a.txt/x", "/granted"],
    ),
    (&["key", "keys", "identifier"], &["", "default", "key", "5", "branch", "word", "\0"]),
    (&["database"], &["bank", "other"]),
    (&["statement"], &["SELECT 1", "SELECT $1::text", "SELECT pg_sleep(1)", ""]),
    (&["method"], &["GET", "POST", "HEAD", "CONNECT"]),
    (&["scheme"], &["http", "https"]),
    (&["path-with-query"], &["/", "/path?query#part", "//x", "*", ""]),
    (&["name", "prefix"], &["x.json", "../other/x.json", "content-length", "transfer-encoding", "host", "connection", "x-mine", "granted.test"]),
    (&[], &["5", "chunked", "18446744073709551615", "\r\nx: y", "\0", "ä\u{202e}\u{1b}[2J", ""]),
];
/// To which the port of the web is added.
const AUTHORITIES: [&str; 5] = ["127.0.0.1", "127.0.0.1", "granted.test", "user@granted.test", "[::1]"];

fn words(port: u16) -> Words {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let authorities = AUTHORITIES.iter().map(|host| format!("{host}:{port}")).collect();
    WORDS.iter().map(|(parameters, words)| (*parameters, owned(words))).chain([(&["authority"][..], authorities)]).collect()
}

fn grants(root: &Path, port: u16) -> Grants {
    let directory = |name: &str, writable| DirectoryGrant { path: root.join(name).display().to_string(), writable };
    let rules = [format!("GET,POST,HEAD http://127.0.0.1:{port}"), format!("GET http://granted.test:{port}"), "GET https://granted.test".to_owned()];
    Grants {
        values: [("branch".to_owned(), "north".to_owned())].into(),
        secrets: [("word".to_owned(), "word".to_owned())].into(),
        http: Some(HttpGrant {
            allow: rules.iter().map(|rule| rule.parse().expect("it is a rule")).collect(),
            requests_max: 4,
            at_once_max: 2,
            request_bytes_max: 100,
            response_bytes_max: 100,
            timeout: Duration::from_millis(15),
            ..HttpGrant::default()
        }),
        directories: [("/granted".to_owned(), directory("granted", true)), ("/readable".to_owned(), directory("readable", false))].into(),
        sql: [("bank".to_owned(), SqlGrant { rows_max: 3, bytes_max: 100, timeout: Duration::from_millis(15) })].into(),
        key_value: Some(KeyValueGrant { value_bytes_max: 100, ..KeyValueGrant::default() }),
        objects: Some(ObjectsGrant { object_bytes_max: 100, total_bytes_max: 150, count_max: 2 }),
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
    fs::write(path, text).expect("a file can be written");
}

/// All files but those below these directories. What a link leads to is not followed: the link is what counts.
fn collect(directory: &Path, except: &[PathBuf], files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() && !except.contains(&path) {
            collect(&path, except, files)?;
        } else if !kind.is_dir() {
            let contents = if kind.is_file() { fs::read(&path)? } else { b"no file".to_vec() };
            files.insert(path, contents);
        }
    }
    Ok(())
}

/// Every name is this machine.
struct Loopback;

#[async_trait]
impl Resolve for Loopback {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
}

/// A web whose every answer is what it is told, whatever it is asked.
fn serve(answer: Arc<Mutex<Vec<u8>>>) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who asked may be gone.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(&answer.lock().expect("nobody panics while holding it"));
        }
    });
    Ok(port)
}
