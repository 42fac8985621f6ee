//! Settings that are wrong say which of them is, and why.

use std::time::Duration;

use rowmill::blobs::{BlobSettings, Blobs};

fn s3() -> BlobSettings {
    BlobSettings {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        access_key_id: Some("the-id".to_owned()),
        secret_access_key: Some("the-secret".to_owned()),
        ..BlobSettings::new("s3://bucket/prefix")
    }
}

/// The setting that is wrong.
fn wrong(settings: &BlobSettings) -> &'static str {
    let error = Blobs::open(settings).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with(&format!("the object store's setting `{}` ", error.setting)), "{said}");
    assert!(!said.contains("the-secret"), "{said}");
    error.setting
}

#[test]
fn a_url_names_a_directory_or_a_bucket() {
    for url in ["", "/directory", "file://relative", "ftp://host", "s3:bucket", "s3://", "s3://B", "s3:///prefix", "s3://a b c", "s3://bucket/a/../b"]
    {
        let settings = BlobSettings { url: url.to_owned(), ..BlobSettings::new("") };
        assert_eq!(wrong(&settings), "url", "{url}");
    }
    for url in ["s3://bucket", "s3://bucket/", "s3://bucket/a/b", "s3://bucket.with-dots/a b"] {
        Blobs::open(&BlobSettings { url: url.to_owned(), ..s3() }).unwrap();
    }
}

#[test]
fn a_directory_has_no_settings_of_s3() {
    let directory = || BlobSettings::new("file:///nowhere");
    let some = Some("x".to_owned());
    assert_eq!(wrong(&BlobSettings { endpoint: some.clone(), ..directory() }), "endpoint");
    assert_eq!(wrong(&BlobSettings { region: some.clone(), ..directory() }), "region");
    assert_eq!(wrong(&BlobSettings { access_key_id: some.clone(), ..directory() }), "access_key_id");
    assert_eq!(wrong(&BlobSettings { secret_access_key: some, ..directory() }), "secret_access_key");
    assert_eq!(wrong(&BlobSettings { path_style: Some(true), ..directory() }), "path_style");
}

#[test]
fn an_endpoint_is_a_host() {
    for endpoint in ["", "host:9000", "ftp://host", "http://", "https:///", "https://host/path", "https://host?a=b", "https://id:the-secret@host"] {
        assert_eq!(wrong(&BlobSettings { endpoint: Some(endpoint.to_owned()), ..s3() }), "endpoint", "{endpoint}");
    }
    for endpoint in ["http://[::1]:9000", "https://s3.example.com", "https://s3.example.com/"] {
        for path_style in [None, Some(true), Some(false)] {
            Blobs::open(&BlobSettings { endpoint: Some(endpoint.to_owned()), path_style, ..s3() }).unwrap();
        }
    }
}

#[test]
fn keys_come_in_pairs() {
    assert_eq!(wrong(&BlobSettings { access_key_id: None, ..s3() }), "access_key_id");
    assert_eq!(wrong(&BlobSettings { secret_access_key: None, ..s3() }), "secret_access_key");
    assert_eq!(wrong(&BlobSettings { secret_access_key: Some(String::new()), ..s3() }), "secret_access_key");
}

#[test]
fn amazon_needs_a_region() {
    assert_eq!(wrong(&BlobSettings { endpoint: None, ..s3() }), "region");
    assert_eq!(wrong(&BlobSettings { region: Some("a/b".to_owned()), ..s3() }), "region");
    Blobs::open(&BlobSettings { endpoint: None, region: Some("eu-central-1".to_owned()), ..s3() }).unwrap();
}

#[test]
fn no_time_at_all_is_too_little() {
    assert_eq!(wrong(&BlobSettings { patience: Duration::ZERO, ..s3() }), "patience");
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?} {:?}", s3(), Blobs::open(&s3()).unwrap());
    assert!(!shown.contains("the-id") && !shown.contains("the-secret"), "{shown}");
}
