//! The rules between settings, and warnings about settings that are valid but probably not
//! intended.

use std::net::SocketAddr;

use super::file::{Caller, File};
use super::form::{AuthMode, StoreKind};
use super::report::{Report, rules};
use crate::access::Role;
use crate::store::WhenAway;

/// Reports each rule that these settings break.
pub(super) fn check(file: &File, report: &mut Report) {
    let (listen, pages, traces) = (&file.listen, &file.pagination.snapshots, &file.traces);
    let (public, admin) = (listen.public, listen.admin);
    let (open, guarded) = (file.auth.mode == AuthMode::Open, !admin.ip().is_loopback());
    let is_operator = |caller: &Caller| caller.role == Some(Role::Operator);
    let (store, valkey) = (&file.store, &file.store.valkey);
    let (kind, away) = (store.kind.as_str(), valkey.when_away.as_str());
    let (shared, unnamed) = (store.kind == StoreKind::Valkey, valkey.addresses.is_empty());
    let collector = traces.otlp_endpoint.as_ref();
    rules! { report, "";
        "listen.admin" if overlap(public, admin) => "must differ from listen.public";
        "auth.mode" if open && !public.ip().is_loopback() =>
            "\"open\" accepts requests without a key, so it needs a loopback address in listen.public";
        "auth.mode" if open && guarded =>
            "\"open\" makes everyone an operator, so it needs a loopback address in listen.admin";
        "listen.admin" if !open && guarded && !file.callers.iter().any(is_operator) =>
            "must be a loopback address, or a caller must have role = \"operator\"";
        "pagination.scroll_idle_max" if pages.scroll_idle_max >= pages.scroll_expiry =>
            "must be shorter than pagination.scroll_expiry: an idle scroll must be ended while the vendor still has it";
        "pagination.token_lifetime" if pages.token_lifetime > pages.snapshot_lifetime_max =>
            "must not be longer than pagination.snapshot_lifetime_max";
        "pagination.walk_bytes_max" if pages.walk_bytes_max > pages.snapshot_bytes_max =>
            "must not be larger than pagination.snapshot_bytes_max, which holds all walks";
        "traces.headers_file" if traces.headers_file.is_some()
            && collector.is_some_and(|url| !url.is_https() && !url.is_near()) =>
            "would be sent unencrypted: traces.otlp_endpoint must begin with https, or name this machine or an IP address";
        "store.valkey.prefix" if valkey.prefix.is_empty() => "must not be empty";
        "store.valkey.when_away" if !shared && valkey.when_away != WhenAway::Open =>
            "is \"{away}\", which needs store.kind = \"valkey\"; with kind = \"{kind}\" it must be \"open\"";
        "store.valkey.addresses" if shared && unnamed =>
            "is missing: kind = \"valkey\" needs the address of a server";
        "store.valkey.password_file" if shared && !unnamed && valkey.username.is_some()
            && valkey.password.source().is_none() =>
            "is missing: username needs the password of the user";
    }
    for (path, table) in [
        ("listen.public_tls", &listen.public_tls),
        ("listen.admin_tls", &listen.admin_tls),
    ] {
        let (on, key) = (
            table.certificate_file.is_some(),
            table.private_key_file.is_some(),
        );
        let (asks, authority) = (table.asks(), table.client_ca_file.is_some());
        let useless = !on && (key || asks || authority);
        rules! { report, path;
            "private_key_file" if on && !key =>
                "is missing: name the file with the key of certificate_file";
            "certificate_file" if useless =>
                "is missing: without it there is no TLS, and the other settings of this table have no effect";
            "client_ca_file" if !useless && asks && !authority =>
                "is missing: client_auth needs the authorities that sign callers' certificates";
            "client_auth" if !useless && authority && !asks =>
                "must be \"optional\" or \"required\" where client_ca_file is set";
        }
    }
}

/// Returns whether only one of two listeners could use its address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let unspecified = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_ip = one.ip() == other.ip() || (one.is_ipv4() == other.is_ipv4() && unspecified);
    one.port() != 0 && one.port() == other.port() && same_ip
}

/// Returns a warning for each setting that is valid but probably not intended.
pub(super) fn warnings(file: &File) -> Vec<String> {
    let mut warnings = Vec::new();
    if ![&file.listen.public_tls, &file.listen.admin_tls]
        .iter()
        .any(|table| table.asks())
    {
        let callers = file.callers.iter().enumerate();
        warnings.extend(callers.filter(|(_, caller)| caller.client_san.is_some()).map(|(i, _)| {
            format!("callers[{i}].client_san: no listener asks for certificates; set client_auth in listen.public_tls or listen.admin_tls")
        }));
    }
    let (used, valkey) = (file.store.kind == StoreKind::Valkey, &file.store.valkey);
    if used && valkey.tls == Some(false) && valkey.is_beyond() {
        warnings.push("store.valkey.tls: off, although the server is not on this machine; the password crosses the network unencrypted".to_owned());
    }
    if used && !valkey.uses_tls() && valkey.ca_file.is_some() && !valkey.is_beyond() {
        warnings.push("store.valkey.ca_file: not used, because connections to this machine use TLS only with store.valkey.tls = true".to_owned());
    }
    let (cases, idle) = (&file.cases, file.pagination.snapshots.scroll_idle_max);
    for (kind, lives) in [
        ("open", cases.open),
        ("recent", cases.recent),
        ("closed", cases.closed),
    ] {
        if lives.fresh < idle {
            warnings.push(format!("cases.{kind}.fresh: shorter than pagination.scroll_idle_max; first pages come from a walk until it ends, so they may be as old as that: lower scroll_idle_max"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, StoreKind, from_text};
    use crate::store::WhenAway;

    #[test]
    fn keys_of_a_table_stand_together() {
        let wrong = |lines: &str| {
            let text = format!(
                "auth.mode = \"open\"\nwiv.api_key_env = \"K\"\n[listen.public_tls]\n{lines}\n"
            );
            from_text("c", &text, [])
                .err()
                .map(|refusal| refusal.to_string())
        };
        let pair = "certificate_file = \"/a\"\nprivate_key_file = \"/b\"\n";
        assert_eq!(wrong(""), None);
        assert_eq!(wrong(pair), None);
        let asked = "client_ca_file = \"/c\"\nclient_auth = \"required\"\n";
        assert_eq!(wrong(&format!("{pair}{asked}")), None);
        for (lines, setting) in [
            ("certificate_file = \"/a\"", "private_key_file: is missing"),
            ("private_key_file = \"/b\"", "certificate_file: is missing"),
            (asked, "certificate_file: is missing"),
            (
                &format!("{pair}client_auth = \"optional\""),
                "client_ca_file: is missing",
            ),
            (
                &format!("{pair}client_ca_file = \"/c\""),
                "client_auth: must be",
            ),
        ] {
            let told = wrong(lines).unwrap();
            let setting = format!("listen.public_tls.{setting}");
            assert!(told.contains(&setting) && !told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn callers_by_certificate_need_a_listener_that_asks() {
        let vendor = "wiv.api_key_env = \"K\"\n";
        let stanza =
            "[[callers]]\nname = \"a\"\nclient_san = [\"a.internal\"]\ncustomers = [\"*\"]\n";
        let caller = format!("{vendor}{stanza}");
        let settings = from_text("c", &caller, []).unwrap();
        let told = settings
            .warnings
            .iter()
            .any(|line| line.contains("callers[0].client_san"));
        assert!(told, "{:?}", settings.warnings);
        let listener = "[listen.public_tls]\ncertificate_file = \"/a\"\nprivate_key_file = \"/b\"\nclient_ca_file = \"/c\"\nclient_auth = \"optional\"\n";
        let settings = from_text("c", &format!("{caller}{listener}"), []).unwrap();
        let told = settings
            .warnings
            .iter()
            .any(|line| line.contains("client_san"));
        assert!(!told, "{:?}", settings.warnings);
        let twice = format!("{caller}{}", stanza.replace("\"a\"", "\"b\""));
        let refused = from_text("c", &twice, []).unwrap_err().to_string();
        assert!(
            refused.contains("callers[1].client_san: callers[0] has one"),
            "{refused}"
        );
        let unknown = caller.replace("client_san = [\"a.internal\"]\n", "");
        let refused = from_text("c", &unknown, []).unwrap_err().to_string();
        assert!(
            refused.contains("callers[0].key_hash: is missing"),
            "{refused}"
        );
    }

    fn with(table: &str) -> Result<Settings, String> {
        let text = format!("auth.mode = \"open\"\nwiv.api_key_env = \"PATH\"\n[traces]\n{table}");
        from_text("c", &text, []).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn traces_are_off_until_a_collector_is_named() {
        for off in ["", "otlp_endpoint = \"\"\nsample_ratio = 1"] {
            assert_eq!(with(off).unwrap().traces.otlp_endpoint, None, "{off}");
        }
        let on = with("otlp_endpoint = \"http://127.0.0.1:4318/\"").unwrap();
        let collector = on.traces.otlp_endpoint.unwrap();
        assert_eq!(collector.to_string(), "http://127.0.0.1:4318");
        assert_eq!(
            (on.traces.sample_ratio, on.traces.headers_file),
            (0.01, None)
        );
    }

    #[test]
    fn shares_are_numbers_from_0_to_1() {
        for (text, share) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1.0", 1.0)] {
            let line = format!("otlp_endpoint = \"http://a:1\"\nsample_ratio = {text}");
            assert_eq!(with(&line).unwrap().traces.sample_ratio, share);
        }
        for bad in ["-0.1", "1.01", "2", "-1", "nan", "inf", "\"half\"", "true"] {
            let why = with(&format!("sample_ratio = {bad}")).unwrap_err();
            assert_eq!(
                why, "c:4: traces.sample_ratio: must be a number from 0 to 1",
                "{bad}"
            );
        }
    }

    #[test]
    fn headers_travel_encrypted_or_nearby() {
        let with_headers = |url: &str| {
            with(&format!(
                "otlp_endpoint = \"{url}\"\nheaders_file = \"/run/h\""
            ))
        };
        for good in [
            "https://otlp.example",
            "http://127.0.0.1:4318",
            "http://localhost:4318",
        ] {
            assert!(with_headers(good).unwrap().traces.headers_file.is_some());
        }
        let why = with_headers("http://otel-collector:4318").unwrap_err();
        assert!(
            why.starts_with("c:5: traces.headers_file: would be sent unencrypted"),
            "{why}"
        );
        assert!(with("otlp_endpoint = \"http://otel-collector:4318\"").is_ok());
    }

    #[test]
    fn only_a_shared_store_may_forbid_to_go_on_without_it() {
        let read = |kind: &str, mode: &str| {
            let text = format!(
                "[auth]\nmode = \"open\"\n[listen]\npublic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[wiv]\nbase_url = \"http://127.0.0.1:1\"\napi_key_env = \"PATH\"\n[store]\nkind = \"{kind}\"\n[store.valkey]\naddresses = [\"127.0.0.1:6379\"]\nwhen_away = \"{mode}\"\n"
            );
            from_text("c", &text, Vec::new())
        };
        for (mode, meant) in [
            ("open", WhenAway::Open),
            ("stale_only", WhenAway::StaleOnly),
            ("closed", WhenAway::Closed),
        ] {
            let settings = read("valkey", mode).unwrap();
            assert_eq!(settings.store.kind, StoreKind::Valkey);
            assert_eq!(settings.store.valkey.when_away, meant);
            for kind in ["disk", "none"] {
                let read = read(kind, mode);
                if mode == "open" {
                    assert!(read.is_ok(), "{kind}");
                    continue;
                }
                let refusal = format!("{:?}", read.err().unwrap());
                let said = format!(
                    "is \\\"{mode}\\\", which needs store.kind = \\\"valkey\\\"; with kind = \\\"{kind}\\\" it must be \\\"open\\\""
                );
                assert!(refusal.contains(&said), "{refusal}");
            }
        }
        let refusal = read("valkey", "shut").err().unwrap();
        assert!(format!("{refusal:?}").contains("stale_only"), "{refusal:?}");
    }
}
