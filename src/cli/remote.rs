//! Sends requests to a running gateway's admin listener.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use serde_json::Value;
use zeroize::Zeroizing;

use super::told::at;
use crate::clock::{Duration, timeout};
use crate::upstream::{BaseUrl, client_tls};

/// Time limit of an answer. An answer takes milliseconds, a purge of many snapshots a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Maximum size of an answer. `/admin/status` with a thousand callers has some 200 KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The address of the gateway, and the operator's credential.
#[derive(Args)]
pub struct Remote {
    /// The gateway's admin listener; http only to localhost or a literal IP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9180", value_parser = admin_url)]
    admin: BaseUrl,
    /// The environment variable that holds an operator's key, needed beyond loopback
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// A PEM file of the authorities that sign the listener's certificate; without it, the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn admin_url(text: &str) -> Result<BaseUrl, String> {
    BaseUrl::parse(text).ok_or_else(|| {
        "must be a URL with a host and an optional port, such as https://gateway.internal:9180; http only to localhost or a literal IP address".to_owned()
    })
}

/// The gateway's answer.
pub struct Told {
    /// The status.
    pub status: StatusCode,
    /// The body, as sent.
    pub body: Bytes,
}

impl Told {
    /// Returns the body as JSON. Null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Remote {
    /// Sends one request.
    ///
    /// # Errors
    /// Returns one line if there is no answer, or the text of the refusal if the answer is one.
    pub fn ask(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Told, String> {
        let told = self.send(method, target, body)?;
        if told.status.is_success() {
            return Ok(told);
        }
        let problem = told.json();
        let word = |member: &str| at(&problem, member).as_str().unwrap_or("").to_owned();
        let hint = match (told.status, &self.key_env) {
            (StatusCode::UNAUTHORIZED, None) => {
                "; name the variable that holds an operator's key with --key-env"
            }
            _ => "",
        };
        Err(format!(
            "{} says {} {}: {}{hint}",
            self.admin,
            told.status.as_u16(),
            word("code"),
            word("detail")
        ))
    }

    /// Sends one request. A refusal counts as an answer.
    ///
    /// # Errors
    /// Returns one line if there is no answer.
    pub fn send(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Told, String> {
        let request = self.request(method, target, body)?;
        let connector = self.connector()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| format!("the runtime cannot be started: {why}"))?;
        let asked = async move {
            let client = Client::builder(TokioExecutor::new()).build(connector);
            let answer = client.request(request).await.map_err(|why| reason(&why))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|why| format!("the answer ended early: {why}"))?;
            Ok::<_, String>(Told {
                status: head.status,
                body: body.to_bytes(),
            })
        };
        // A timer must be created inside the runtime.
        let answer = runtime.block_on(async { timeout(ANSWER_WITHIN, asked).await });
        match answer {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(why)) => Err(format!("{} cannot be reached: {why}", self.admin)),
            Err(_) => Err(format!(
                "{} gave no answer within {} s",
                self.admin,
                ANSWER_WITHIN.as_secs()
            )),
        }
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let uri: Uri = format!("{}{target}", self.admin)
            .parse()
            .map_err(|_| "the request has no address".to_owned())?;
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(text)));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        if body.is_some() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        if let Some(key) = self.key()? {
            let bearer = Zeroizing::new(format!("Bearer {}", *key));
            let mut bearer = HeaderValue::try_from(bearer.as_str())
                .map_err(|_| "the key holds a character that no header can carry".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        Ok(request)
    }

    fn key(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(name) = &self.key_env else {
            return Ok(None);
        };
        let key = std::env::var(name).map(Zeroizing::new);
        let key = key.map_err(|_| "--key-env names a variable that is not set".to_owned())?;
        Ok(Some(Zeroizing::new(key.trim().to_owned())))
    }

    fn connector(
        &self,
    ) -> Result<
        hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>,
        String,
    > {
        let authorities = match &self.ca_file {
            Some(file) => Some(authorities(file)?),
            // Reading the system's roots is slow, and plain HTTP does not use them.
            None if !self.admin.is_https() => Some(RootCertStore::empty()),
            None => None,
        };
        let tls = client_tls(authorities).map_err(|why| format!("TLS cannot be set up: {why}"))?;
        Ok(HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build())
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    crate::server::authorities(file)
        .map_err(|problem| format!("--ca-file: {} {}", file.display(), problem.why))
}

/// Returns the innermost reason of a failure. The outer ones only say that something failed.
fn reason(why: &dyn std::error::Error) -> String {
    let mut inner = why;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Returns a text as it is written in a query.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
