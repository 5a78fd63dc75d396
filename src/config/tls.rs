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

/// Whether anybody can come with a certificate at all.
pub(super) fn asks_for_certificates(listen: &Listen) -> bool {
    [&listen.public_tls, &listen.admin_tls]
        .into_iter()
        .any(|table| table.client_auth.0 != ClientAuth::None)
}

/// Holds the keys of a table to each other.
pub(super) fn check(path: &str, table: &ListenTls, report: &mut Report) {
    let at = |setting: &str| format!("{path}.{setting}");
    let on = !table.certificate_file.0.is_empty();
    let asks = table.client_auth.0 != ClientAuth::None;
    let has_authority = !table.client_ca_file.0.is_empty();
    if on && table.private_key_file.0.is_empty() {
        report.rule(
            &at("private_key_file"),
            "is missing: name the file with the key of certificate_file",
        );
    }
    if !on && (!table.private_key_file.0.is_empty() || asks || has_authority) {
        report.rule(
            &at("certificate_file"),
            "is missing: without it there is no TLS, and the rest of this table means nothing",
        );
    } else if asks && !has_authority {
        report.rule(
            &at("client_ca_file"),
            "is missing: client_auth needs to know who vouches for callers' certificates",
        );
    } else if has_authority && !asks {
        report.rule(
            &at("client_auth"),
            "must be \"optional\" or \"required\" where client_ca_file stands",
        );
    }
}

/// What the listener takes; `None`: in the clear.
pub(super) fn options(table: &ListenTls) -> Option<TlsOptions> {
    let path = |text: &str| (!text.is_empty()).then(|| text.into());
    Some(TlsOptions {
        certificate_file: path(&table.certificate_file.0)?,
        private_key_file: path(&table.private_key_file.0)?,
        client_ca_file: path(&table.client_ca_file.0),
        client_auth: table.client_auth.0,
    })
}
