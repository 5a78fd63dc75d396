//! The outbound stack over TLS: who may see the key, and HTTP/2.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::test_vendor::{CANARY, key, options, spend};
use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::domain::{Operation, Vendor};
use msp_gateway::metrics::Metrics;
use msp_gateway::secrets::VendorKeys;
use msp_gateway::stack::outbound;
use msp_gateway::upstream::connect::InMemory;
use msp_gateway::upstream::{BaseUrl, Fault, Over, UpstreamError, VendorAnswer, VendorCall};

/// Made for these tests, for the name `vendor.test`; good for nothing else.
const CERTIFICATE: &str = "\
    MIIBdzCCAR2gAwIBAgIUW3DEOsCyjtqb2ORMkZfjdsn9bg0wCgYIKoZIzj0EAwIwFjEUMBIGA1UEAwwLdmVuZG9yLn\
    Rlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBYxFDASBgNVBAMMC3ZlbmRvci50ZXN0MFkwEwYH\
    KoZIzj0CAQYIKoZIzj0DAQcDQgAEdFXgOVCt9OzLzZrg8+2LPrg/Hj5v9RVI+Z1kJ80/GPkKOWEFDfuZhL1g0UZq/k\
    PCkVeLxhIvzCrjteUTlbS1uKNHMEUwFgYDVR0RBA8wDYILdmVuZG9yLnRlc3QwDAYDVR0TAQH/BAIwADAdBgNVHQ4E\
    FgQUV/3u3ZYuUFW9CELinNBQid1R/RUwCgYIKoZIzj0EAwIDSAAwRQIhAM6AK2Y7ybI5/yYLbUpJPfmoeHSs7cQol4\
    R9pfXObEEqAiAZ/JUREoNH7+cmi+9bfN6X9VU+sfh7Q38OG9Ngt6QiTA==";
const CERTIFICATE_KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwQbj1oJLqIsq1uxnfVCDJr3FMJ0hpVTk3q/e/h+uR1\
    uhRANCAAR0VeA5UK307MvNmuDz7Ys+uD8ePm/1FUj5nWQnzT8Y+Qo5YQUN+5mEvWDRRmr+Q8KRV4vGEi/MKuO15ROV\
    tLW4";

fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What the vendor read once TLS stood: whether any request, and with which key.
type Keys = Arc<Mutex<Vec<String>>>;

type Script = fn(usize) -> StatusCode;

/// A vendor behind TLS that speaks HTTP/2 if asked, and notes the keys it is shown.
fn vendor(keys: &Keys, script: Script) -> InMemory {
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(der(CERTIFICATE))],
            PrivateKeyDer::try_from(der(CERTIFICATE_KEY)).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let keys = Arc::clone(keys);
    InMemory::new(move || {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (acceptor, keys) = (acceptor.clone(), Arc::clone(&keys));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(theirs).await else {
                return;
            };
            let answer = move |request: Request<Incoming>| {
                let keys = Arc::clone(&keys);
                async move {
                    let shown = request.headers()["x-api-key"].to_str().unwrap().to_owned();
                    let number = {
                        let mut keys = keys.lock();
                        keys.push(shown);
                        keys.len()
                    };
                    let status = script(number);
                    if status == StatusCode::REQUEST_TIMEOUT {
                        sleep(Duration::from_secs(3600)).await;
                    }
                    if status == StatusCode::GONE {
                        return Err("the stream is reset");
                    }
                    let body = Full::new(Bytes::from(format!("[{number}]")));
                    Ok(Response::builder().status(status).body(body).unwrap())
                }
            };
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer))
                .await;
        });
        ours
    })
}

fn trusting(connector: InMemory, anchors: &[&str]) -> HttpsConnector<InMemory> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(CertificateDer::from(der(anchor))).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector)
}

/// Asks `times` times.
async fn ask(
    host: &str,
    connector: HttpsConnector<InMemory>,
    operation: Operation,
    times: usize,
) -> Vec<Result<VendorAnswer, UpstreamError>> {
    let mut options = options(Vendor::Wiv);
    options.base_url = BaseUrl::parse(&format!("https://{host}")).unwrap();
    let ring = Arc::new(arc_swap::ArcSwap::from_pointee(VendorKeys {
        primary: key(CANARY),
        fallback: None,
    }));
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let gates = options.gates(ring, &clock, &metrics);
    let service = outbound(&options, &gates, &clock, &metrics, connector);
    let mut results = Vec::new();
    for _ in 0..times {
        let call = VendorCall {
            operation,
            method: Method::POST,
            path_and_query: "/v2/cases/msp/search".into(),
            body: Bytes::from_static(b"{}"),
            spend: spend(),
            over: Over::Any,
            resends: 0,
            span: None,
        };
        results.push(service.call(call).await);
    }
    results
}

#[tokio::test(start_paused = true)]
async fn the_key_is_shown_to_the_right_vendor_only() {
    for (host, anchors, detail) in [
        (
            "vendor.test",
            &[][..],
            "the certificate's issuer is unknown",
        ),
        (
            "other.test",
            &[CERTIFICATE][..],
            "the certificate is for another host",
        ),
    ] {
        let keys = Keys::default();
        let connector = trusting(vendor(&keys, |_| StatusCode::OK), anchors);
        let results = ask(host, connector, Operation::Continue, 1).await;
        let error = results[0].as_ref().unwrap_err();
        assert_eq!((error.fault, &*error.detail), (Fault::Connect, detail));
        assert!(keys.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_gets_nothing() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let plain = {
        let heard = Arc::clone(&heard);
        InMemory::new(move || {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (ours, mut theirs) = tokio::io::duplex(64 << 10);
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let mut bytes = Vec::new();
                let _ = theirs.read_to_end(&mut bytes).await;
                heard.lock().extend(bytes);
            });
            ours
        })
    };
    let connector = trusting(plain, &[CERTIFICATE]);
    let results = ask("vendor.test", connector, Operation::Continue, 1).await;
    assert_eq!(results[0].as_ref().unwrap_err().fault, Fault::Connect);
    let heard = String::from_utf8_lossy(&heard.lock()).into_owned();
    assert!(!heard.contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_handshake_ends_with_the_connect_timeout() {
    let pipes = Arc::new(Mutex::new(Vec::new()));
    let silent = InMemory::new(move || {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        pipes.lock().push(theirs);
        ours
    });
    let begun = Clock::system().now();
    let connector = trusting(silent, &[CERTIFICATE]);
    let results = ask("vendor.test", connector, Operation::Continue, 1).await;
    assert_eq!(results[0].as_ref().unwrap_err().fault, Fault::Connect);
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn http2_answers_and_faults_are_understood() {
    let script: Script = |number| match number {
        2 => StatusCode::SERVICE_UNAVAILABLE,
        3 => StatusCode::REQUEST_TIMEOUT,
        4 => StatusCode::GONE,
        _ => StatusCode::OK,
    };
    let keys = Keys::default();
    let connector = trusting(vendor(&keys, script), &[CERTIFICATE]);
    let results = ask("vendor.test", connector, Operation::Continue, 5).await;
    let ends: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().map(|a| &a.body[..]).map_err(|e| e.fault))
        .collect();
    assert_eq!(
        ends,
        [
            Ok(&b"[1]"[..]),
            Err(Fault::ServerError),
            Err(Fault::Timeout),
            Err(Fault::Reset),
            Ok(&b"[5]"[..]),
        ]
    );
    assert_eq!(*keys.lock(), [CANARY; 5], "each was sent once");
}
