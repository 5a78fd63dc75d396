//! The rules of `[listen.public_tls]` and `[listen.admin_tls]`, and reading their files.

use super::file::{Listen, ListenTls};
use super::report::Report;
use crate::server::{ClientAuth, TlsOptions, TlsSetup};

/// The tables' paths.
pub(super) const PUBLIC: &str = "listen.public_tls";
pub(super) const ADMIN: &str = "listen.admin_tls";

/// TLS of both listeners, its files read; `None` where a listener is in the clear.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// For callers.
    pub public: Option<TlsSetup>,
    /// For operators and Prometheus.
    pub admin: Option<TlsSetup>,
}

/// Returns whether a listener requests certificates from callers.
pub(super) fn asks_for_certificates(listen: &Listen) -> bool {
    [&listen.public_tls, &listen.admin_tls]
        .into_iter()
        .any(|table| table.client_auth != ClientAuth::None)
}

/// Checks the settings of a table against each other.
pub(super) fn check(path: &str, table: &ListenTls, report: &mut Report) {
    let at = |setting: &str| format!("{path}.{setting}");
    let on = table.certificate_file.is_some();
    let asks = table.client_auth != ClientAuth::None;
    let has_authority = table.client_ca_file.is_some();
    if on && table.private_key_file.is_none() {
        report.rule(
            &at("private_key_file"),
            "is missing: name the file with the key of certificate_file",
        );
    }
    if !on && (table.private_key_file.is_some() || asks || has_authority) {
        report.rule(
            &at("certificate_file"),
            "is missing: without it there is no TLS, and the other settings of this table have no effect",
        );
    } else if asks && !has_authority {
        report.rule(
            &at("client_ca_file"),
            "is missing: client_auth needs the authorities that sign callers' certificates",
        );
    } else if has_authority && !asks {
        report.rule(
            &at("client_auth"),
            "must be \"optional\" or \"required\" where client_ca_file is set",
        );
    }
}

/// Returns the TLS options of the listener. `None`: no TLS.
pub(super) fn options(table: &ListenTls) -> Option<TlsOptions> {
    Some(TlsOptions {
        certificate_file: table.certificate_file.clone()?,
        private_key_file: table.private_key_file.clone()?,
        client_ca_file: table.client_ca_file.clone(),
        client_auth: table.client_auth,
    })
}

#[cfg(test)]
mod tests {
    use super::super::from_text;

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
}
