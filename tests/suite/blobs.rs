//! Objects in a local directory and on S3: what both do, and what only a server can do wrong.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use rowmill::blobs::{BlobError, BlobSettings, Blobs};
use rowmill::model::BatchId;
use rowmill_tests::servers::S3;
use tempfile::TempDir;

mod settings;

/// A place for objects, which goes with the test.
struct Home {
    blobs: Blobs,
    /// Under which every byte is that is kept, what is unfinished included.
    files: PathBuf,
    _keeper: Keeper,
}

#[expect(dead_code, reason = "they are kept until the test ends")]
enum Keeper {
    Directory(TempDir),
    Server(S3),
}

fn directory() -> Home {
    let directory = TempDir::new().unwrap();
    let blobs = Blobs::open(&BlobSettings::new(format!("file://{}/objects", directory.path().display()))).unwrap();
    Home { blobs, files: directory.path().to_owned(), _keeper: Keeper::Directory(directory) }
}

pub fn s3_settings(s3: &S3) -> BlobSettings {
    BlobSettings {
        endpoint: Some(s3.endpoint()),
        region: Some(S3::REGION.to_owned()),
        access_key_id: Some(S3::ACCESS_KEY_ID.to_owned()),
        secret_access_key: Some(S3::SECRET_ACCESS_KEY.to_owned()),
        ..BlobSettings::new(format!("s3://{}/some/prefix", S3::BUCKET))
    }
}

fn bucket() -> Home {
    let s3 = S3::start().unwrap();
    Home { blobs: Blobs::open(&s3_settings(&s3)).unwrap(), files: s3.objects(), _keeper: Keeper::Server(s3) }
}

/// Each of these for both kinds.
macro_rules! for_both {
    ($($name:ident)*) => {
        mod in_a_directory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::directory()).await;
            })*
        }
        mod on_s3 {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::bucket()).await;
            })*
        }
    };
}

for_both! {
    an_object_is_written_in_pieces_and_read_back
    an_object_appears_when_it_is_finished
    an_object_may_be_empty
    an_object_as_large_as_a_part_is_whole
    an_object_that_is_not_there_is_not_found
    a_small_object_is_put_replaced_and_removed
    names_may_hold_anything
    what_is_dropped_leaves_nothing
    a_place_that_works_passes_its_check
}

async fn content(blobs: &Blobs, object: &str) -> Result<Vec<u8>, BlobError> {
    let mut parts = blobs.read(object).await?;
    let mut whole = Vec::new();
    while let Some(part) = parts.try_next().await? {
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// Bytes of which no two stretches are the same.
fn bytes(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()).take(length).collect()
}

/// Objects and what is unfinished, without what the server remembers about objects that are gone.
fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_under(&entry.path()));
        } else if !entry.file_name().to_str().unwrap().starts_with(".bucket-") {
            files.push(entry.path());
        }
    }
    files
}

async fn an_object_is_written_in_pieces_and_read_back(home: Home) {
    let whole = bytes(13 << 20);
    let mut writer = home.blobs.begin(BatchId::generate());
    // Pieces of all sizes: small, larger than a part, and none.
    let (first, rest) = whole.split_at(11);
    let (second, rest) = rest.split_at(6 << 20);
    writer.write(first).await.unwrap();
    writer.write(second).await.unwrap();
    writer.write(&[]).await.unwrap();
    for piece in rest.chunks(100_003) {
        writer.write(piece).await.unwrap();
    }
    let (object, size_bytes) = writer.finish().await.unwrap();
    assert_eq!(size_bytes, 13 << 20);
    assert!(content(&home.blobs, &object).await.unwrap() == whole);
    assert!(home.blobs.get(&object).await.unwrap() == whole);
}

async fn an_object_appears_when_it_is_finished(home: Home) {
    for length in [100, 11 << 20] {
        let batch = BatchId::generate();
        let mut writer = home.blobs.begin(batch);
        writer.write(&bytes(length)).await.unwrap();
        let other = home.blobs.begin(batch).finish().await.unwrap().0;
        let (object, _) = writer.finish().await.unwrap();
        assert_ne!(object, other);
        assert!(object.starts_with(&format!("batches/{batch}/")), "{object}");
        assert_eq!(home.blobs.get(&object).await.unwrap().len(), length);
    }
}

async fn an_object_may_be_empty(home: Home) {
    let (object, size_bytes) = home.blobs.begin(BatchId::generate()).finish().await.unwrap();
    assert_eq!(size_bytes, 0);
    assert_eq!(content(&home.blobs, &object).await.unwrap(), b"");
    home.blobs.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(home.blobs.get("empty").await.unwrap(), b""[..]);
}

async fn an_object_as_large_as_a_part_is_whole(home: Home) {
    for length in [(5 << 20) - 1, 5 << 20, (5 << 20) + 1, 10 << 20] {
        let mut writer = home.blobs.begin(BatchId::generate());
        writer.write(&bytes(length)).await.unwrap();
        let (object, size_bytes) = writer.finish().await.unwrap();
        assert_eq!(size_bytes, length as u64);
        assert!(content(&home.blobs, &object).await.unwrap() == bytes(length));
    }
}

async fn an_object_that_is_not_there_is_not_found(home: Home) {
    assert!(home.blobs.get("nowhere").await.unwrap_err().is_not_found());
    assert!(content(&home.blobs, "nowhere/at/all").await.unwrap_err().is_not_found());
    home.blobs.delete("nowhere").await.unwrap();
}

async fn a_small_object_is_put_replaced_and_removed(home: Home) {
    let object = "processors/0a1b.wasm";
    for content in ["first", "second, and longer"] {
        home.blobs.put(object, content.into()).await.unwrap();
        assert_eq!(home.blobs.get(object).await.unwrap(), content);
    }
    home.blobs.delete(object).await.unwrap();
    assert!(home.blobs.get(object).await.unwrap_err().is_not_found());
}

async fn names_may_hold_anything(home: Home) {
    let names =
        ["a b", "ümlaut/日本", "100%", "a%20b", "a+b&c=d?e#f", "../up", "dots/./in/../it", "quote\"'s", "line\nbreak", "back\\slash", "*", "~"];
    for name in names {
        home.blobs.put(name, Bytes::from(name)).await.unwrap_or_else(|error| panic!("{name:?}: {error:?}"));
    }
    for name in names {
        assert_eq!(home.blobs.get(name).await.unwrap_or_else(|error| panic!("{name:?}: {error:?}")), name);
    }
    for name in names {
        home.blobs.delete(name).await.unwrap_or_else(|error| panic!("{name:?}: {error:?}"));
        assert!(home.blobs.get(name).await.unwrap_err().is_not_found(), "{name:?}");
    }
}

async fn what_is_dropped_leaves_nothing(home: Home) {
    let before = files_under(&home.files);
    for length in [0, 100, 6 << 20, 17 << 20] {
        let mut writer = home.blobs.begin(BatchId::generate());
        writer.write(&bytes(length)).await.unwrap();
        drop(writer);
        let give_up = Instant::now() + Duration::from_secs(60);
        while files_under(&home.files) != before {
            assert!(Instant::now() < give_up, "{length}: {:?}", files_under(&home.files));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn a_place_that_works_passes_its_check(home: Home) {
    let before = files_under(&home.files);
    home.blobs.check().await.unwrap();
    assert_eq!(files_under(&home.files), before);
}

fn sentence(error: impl std::error::Error + Send + Sync + 'static) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_server_that_is_down_is_an_error_in_time_and_no_more_when_it_is_back() {
    let mut s3 = S3::start().unwrap();
    let blobs = Blobs::open(&BlobSettings { patience: Duration::from_secs(2), ..s3_settings(&s3) }).unwrap();
    let mut finished = blobs.begin(BatchId::generate());
    finished.write(&bytes(6 << 20)).await.unwrap();
    let (kept, _) = finished.finish().await.unwrap();
    let mut writer = blobs.begin(BatchId::generate());
    writer.write(&bytes(6 << 20)).await.unwrap();
    s3.kill();
    // Each of these would wait for ever if its time were not bounded, and the test's own time is.
    assert!(!blobs.get(&kept).await.unwrap_err().is_not_found());
    blobs.put("small", Bytes::new()).await.unwrap_err();
    blobs.delete(&kept).await.unwrap_err();
    writer.finish().await.unwrap_err();
    let said = sentence(blobs.check().await.unwrap_err());
    assert_eq!(said, format!("objects cannot be kept in the bucket {} at {}: it cannot be reached, or does not answer", S3::BUCKET, s3.endpoint()));
    s3.restart().unwrap();
    assert!(content(&blobs, &kept).await.unwrap() == bytes(6 << 20));
    blobs.check().await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_connections_and_never_answers_is_an_error_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let s3 = S3::start().unwrap();
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let blobs = Blobs::open(&BlobSettings { endpoint, patience: Duration::from_secs(2), ..s3_settings(&s3) }).unwrap();
    blobs.get("any").await.unwrap_err();
    let mut writer = blobs.begin(BatchId::generate());
    writer.write(&bytes(6 << 20)).await.unwrap_err();
    assert!(sentence(blobs.check().await.unwrap_err()).ends_with(": it cannot be reached, or does not answer"));
}

#[tokio::test]
async fn keys_that_are_wrong_are_said() {
    let s3 = S3::start().unwrap();
    let reason = async |settings: BlobSettings| sentence(Blobs::open(&settings).unwrap().check().await.unwrap_err());
    let said = reason(BlobSettings { access_key_id: Some("nobody".to_owned()), ..s3_settings(&s3) }).await;
    assert!(said.ends_with(": it does not know the `access_key_id`"), "{said}");
    let said = reason(BlobSettings { secret_access_key: Some("wrong".to_owned()), ..s3_settings(&s3) }).await;
    assert!(said.ends_with(": the `secret_access_key` is not that of the `access_key_id`"), "{said}");
}

/// S3's answers that the server of the tests never gives: it makes a bucket when it is missing, and has no regions.
#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said() {
    let answers = [
        ("404 Not Found", "NoSuchBucket", "there is no such bucket"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "it does not take requests for this `region`"),
        ("301 Moved Permanently", "PermanentRedirect", "the bucket is in another `region`, or has another `endpoint`"),
        ("403 Forbidden", "RequestTimeTooSkewed", "this machine's clock is wrong"),
        ("403 Forbidden", "AccessDenied", "the keys may not write objects there"),
        ("501 Not Implemented", "NotImplemented", "an object could not be written"),
    ];
    for (status, code, reason) in answers {
        let endpoint = answering(status, &format!("<Error><Code>{code}</Code></Error>"));
        let settings = BlobSettings {
            endpoint: Some(endpoint),
            access_key_id: Some("id".to_owned()),
            secret_access_key: Some("secret".to_owned()),
            patience: Duration::from_secs(4),
            ..BlobSettings::new("s3://bucket")
        };
        let said = sentence(Blobs::open(&settings).unwrap().check().await.unwrap_err());
        assert!(said.ends_with(&format!(": {reason}")), "{code}: {said}");
    }
}

/// The endpoint of a server that gives every request the same answer.
fn answering(status: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut request = [0; 16_384];
            let _ = connection.read(&mut request);
            let _ = connection.write_all(answer.as_bytes());
            // The rest is read, or the answer would be thrown away with it.
            let _ = connection.shutdown(Shutdown::Write);
            while connection.read(&mut request).is_ok_and(|read| read > 0) {}
        }
    });
    endpoint
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_said() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("objects");
    fs::create_dir(&place).unwrap();
    let blobs = Blobs::local(&place).unwrap();
    // Nothing can be made under a file, not even by root.
    fs::remove_dir(&place).unwrap();
    fs::write(&place, "").unwrap();
    let said = sentence(blobs.check().await.unwrap_err());
    assert_eq!(said, format!("objects cannot be kept in the directory {}: an object could not be written", place.display()));
}
