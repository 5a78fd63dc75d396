//! TLS through the whole gateway: certificates change in their files amid traffic, and callers are
//! known by theirs.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use msp_gateway::config;
use msp_gateway::reload::Reloader;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Files, NAME, Pair, TlsCaller};
use crate::whole::{Events, SETTINGS, Whole, caller, get, post, world};

/// A gateway whose listeners speak TLS, with its files.
struct Rig {
    whole: Whole,
    reloader: Reloader,
    authority: Authority,
    files: Files,
}

const CALLERS: &str = "
[[callers]]
name = \"dash\"
client_san = [\"dash.internal\"]
customers = [\"*\"]
[[callers]]
name = \"op\"
role = \"operator\"
client_san = [\"spiffe://corp.example/op\"]
customers = [\"*\"]
";

impl Rig {
    fn new() -> Self {
        let authority = Authority::new();
        let files = Files::of(&authority.server(NAME, (2020, 2100)));
        files.write("ca.crt", &authority.pem());
        let text = Self::text(&files, CALLERS);
        files.write("config.toml", &text);
        let path = files.path("config.toml");
        let settings = config::load(Some(&path)).unwrap();
        let secrets = settings.read_secrets().unwrap();
        Self {
            whole: Whole::of(&settings, &secrets, world()),
            reloader: Reloader::new(&path, &settings),
            authority,
            files,
        }
    }

    fn text(files: &Files, callers: &str) -> String {
        let path = |name: &str| files.path(name).display().to_string();
        let tls = |listener: &str| {
            format!(
                "[listen.{listener}_tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\nclient_ca_file = \"{}\"\nclient_auth = \"optional\"\n",
                path("tls.crt"),
                path("tls.key"),
                path("ca.crt"),
            )
        };
        let keyed = |text: &str, name: &str| {
            text.replace(
                "api_key_env = \"UNUSED\"",
                &format!("api_key_file = \"{}\"", path(name)),
            )
        };
        files.write("wiv", msp_gateway::sandbox::WIV_KEY);
        files.write("nable", msp_gateway::sandbox::NABLE_KEY);
        let (wiv, nable) = SETTINGS.split_once("[nable]").unwrap();
        let (wiv, nable) = (keyed(wiv, "wiv"), keyed(nable, "nable"));
        let (public, admin) = (tls("public"), tls("admin"));
        let key = caller("all", "");
        // Beyond loopback, so that an operator has to say who it is.
        let wiv = wiv.replace("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:0\"");
        format!("{wiv}[nable]{nable}{public}{admin}{key}{callers}")
    }

    async fn connect(&self, who: &TlsCaller) -> TlsStream<DuplexStream> {
        self.shake(who, false).await
    }

    async fn shake(&self, who: &TlsCaller, admin: bool) -> TlsStream<DuplexStream> {
        let near = self.whole.open_tls(admin);
        let connector = TlsConnector::from(Arc::new(who.config(&self.authority)));
        let name = ServerName::try_from(NAME).unwrap();
        connector.connect(name, near).await.unwrap()
    }

    fn known_as(&self, names: &[&str]) -> TlsCaller {
        TlsCaller {
            pair: Some(self.authority.client(names)),
            ..TlsCaller::speaking(b"http/1.1")
        }
    }

    async fn refused(&self) -> f64 {
        let text = self.metrics().await;
        let line = "config_reloads_total{outcome=\"refused\"} ";
        let value = text.split_once(line).unwrap().1.lines().next().unwrap();
        value.parse().unwrap()
    }

    async fn metrics(&self) -> String {
        self.whole.metrics_text().await
    }
}

/// One request over HTTP/1.1; its status.
async fn ask(stream: &mut TlsStream<DuplexStream>, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let head = loop {
        assert!(stream.read_buf(&mut text).await.unwrap() > 0);
        if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            break String::from_utf8(text[..end].to_vec()).unwrap();
        }
    };
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    while text.len() < head.len() + 4 + length {
        assert!(stream.read_buf(&mut text).await.unwrap() > 0);
    }
    head[9..12].parse().unwrap()
}

fn shown(stream: &TlsStream<DuplexStream>) -> &[u8] {
    &stream.get_ref().1.peer_certificates().unwrap()[0]
}

const CUSTOMERS: &str = "/msp/customers?fields=id";

#[tokio::test(start_paused = true)]
async fn fifty_bad_pairs_change_nothing_and_a_good_one_is_for_new_connections() {
    let mut rig = Rig::new();
    let plain = TlsCaller::speaking(b"http/1.1");
    let by_key = get(CUSTOMERS, "x-api-key: k-all\r\n");
    let mut old = rig.connect(&plain).await;
    let first = shown(&old).to_vec();
    let good = rig.authority.server(NAME, (2020, 2100));
    let expired = rig.authority.server(NAME, (2020, 2024));
    let (certificate, key) = (&good.certificate_pem, good.key.serialize_pem());
    let kept = std::fs::read_to_string(rig.files.path("tls.key")).unwrap();
    for at in 0..50 {
        let cut = |text: &str| text[..text.len() * (at / 5) / 10].to_owned();
        match at % 5 {
            // Cut short anywhere, emptied among it; of another pair; out of date; gone.
            0 => rig.files.write("tls.crt", &cut(certificate)),
            1 => {
                rig.files.write("tls.crt", certificate);
                rig.files.write("tls.key", &cut(&key));
            }
            2 => {
                rig.files.write("tls.crt", certificate);
                rig.files.write("tls.key", &kept);
            }
            3 => rig.files.put(&expired),
            _ => std::fs::remove_file(rig.files.path("tls.key")).unwrap(),
        }
        let before = rig.refused().await;
        rig.reloader.reload(&rig.whole.app).await;
        assert_eq!(rig.refused().await, before + 1.0, "{at}");
        let mut new = rig.connect(&plain).await;
        assert_eq!(shown(&new), first, "{at}");
        assert_eq!(ask(&mut new, &by_key).await, 200);
        assert_eq!(ask(&mut old, &by_key).await, 200);
    }
    rig.files.put(&good);
    rig.reloader.reload(&rig.whole.app).await;
    assert_eq!(rig.refused().await, 50.0);
    let mut new = rig.connect(&plain).await;
    assert_eq!(shown(&new), &good.certificate[..]);
    assert_eq!(ask(&mut new, &by_key).await, 200);
    assert_eq!(ask(&mut old, &by_key).await, 200);
    assert_eq!(shown(&old), first);
    let metrics = rig.metrics().await;
    for listener in ["public", "admin"] {
        let line = format!(
            "msp_gateway_tls_certificate_not_after_timestamp_seconds{{listener=\"{listener}\"}} 4133894400"
        );
        assert!(metrics.contains(&line), "{listener}");
    }
    let status = rig.whole.ask_admin(get("/admin/status", "")).await.json();
    for (at, listener) in ["public", "admin"].into_iter().enumerate() {
        let certificate = &status["certificates"][at];
        assert_eq!(certificate["listener"], listener);
        assert_eq!(certificate["not_after"], "2100-12-31T00:00:00Z");
        let left = certificate["ends_in_s"].as_i64().unwrap();
        assert!(left > 73 * 365 * 86_400, "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_no_caller_any_more_is_out_on_connections_that_stand() {
    let mut rig = Rig::new();
    let dash = rig.known_as(&["dash.internal"]);
    let request = get(CUSTOMERS, "");
    let mut stream = rig.connect(&dash).await;
    assert_eq!(ask(&mut stream, &request).await, 200);
    let without = CALLERS.replace("dash.internal", "other.internal");
    let text = Rig::text(&rig.files, &without);
    rig.files.write("config.toml", &text);
    rig.reloader.reload(&rig.whole.app).await;
    assert_eq!(rig.refused().await, 0.0);
    assert_eq!(ask(&mut stream, &request).await, 401);
    let by_key = get(CUSTOMERS, "x-api-key: k-all\r\n");
    assert_eq!(ask(&mut stream, &by_key).await, 200);
}

#[tokio::test(start_paused = true)]
async fn tls_is_switched_off_by_a_restart_only() {
    let mut rig = Rig::new();
    let (events, _guard) = Events::listen();
    let text = Rig::text(&rig.files, "");
    let at = text.find("[listen.public_tls]").unwrap();
    let end = text[at..].find("[[callers]]").unwrap() + at;
    rig.files.write(
        "config.toml",
        &format!("{}{}", &text[..at], operator(&text[end..])),
    );
    rig.reloader.reload(&rig.whole.app).await;
    assert_eq!(rig.refused().await, 0.0);
    for listener in ["public", "admin"] {
        let line = format!("listen.{listener}_tls: TLS on or off: a change needs a restart");
        assert!(events.text().contains(&line), "{}", events.text());
    }
    let mut stream = rig.connect(&TlsCaller::speaking(b"http/1.1")).await;
    let by_key = get(CUSTOMERS, "x-api-key: k-all\r\n");
    assert_eq!(ask(&mut stream, &by_key).await, 200);
}

/// The caller as an operator, whom the admin listener needs.
fn operator(stanza: &str) -> String {
    stanza.replace("customers =", "role = \"operator\"\ncustomers =")
}

#[tokio::test(start_paused = true)]
async fn operators_may_come_by_certificate() {
    let rig = Rig::new();
    let body = "{\"kind\":\"cases\"}";
    let purge = post("/admin/purge", "content-type: application/json\r\n", body);
    for (names, status) in [
        (&["spiffe://corp.example/op"][..], 200),
        (&["dash.internal"], 403),
        (&["x.internal"], 401),
    ] {
        let mut stream = rig.shake(&rig.known_as(names), true).await;
        assert_eq!(ask(&mut stream, &purge).await, status, "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exports_end_with_their_rows_over_http_2() {
    let rig = Rig::new();
    let pair: Pair = rig.authority.client(&["dash.internal"]);
    let who = TlsCaller {
        pair: Some(pair),
        ..TlsCaller::speaking(b"h2")
    };
    let stream = rig.connect(&who).await;
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(format!("https://{NAME}/v1/cases/export"))
        .header("te", "trailers")
        .body(())
        .unwrap();
    requests = requests.ready().await.unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(
        (head.status.as_u16(), head.version),
        (200, http::Version::HTTP_2)
    );
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data: Bytes = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    let rows = text.iter().filter(|b| **b == b'\n').count();
    assert_eq!(trailers["x-export-rows"], rows.to_string().as_str());
    assert!(rows > 300, "{rows}");
}
