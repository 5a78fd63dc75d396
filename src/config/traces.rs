//! The rules of `[traces]`.

use super::file::Traces;
use super::report::Report;
use crate::secrets::SecretSource;
use crate::traces::CollectorUrl;

/// Longest file of headers.
pub(super) const HEADERS_BYTES_MAX: usize = 16 << 10;

/// The `[traces]` settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Where spans go.
    pub collector: CollectorUrl,
    /// Of how many requests.
    pub sample_ratio: f64,
    /// Holds the headers of an export.
    pub headers: Option<SecretSource>,
}

/// Returns the options. `None` if traces are off.
pub(super) fn settings(table: &Traces, report: &mut Report) -> Option<TraceSettings> {
    let headers = table.headers_file.clone().map(SecretSource::File);
    let collector = table.otlp_endpoint.clone()?;
    if headers.is_some() && !collector.is_https() && !collector.is_near() {
        report.rule(
            "traces.headers_file",
            "would be sent unencrypted: traces.otlp_endpoint must begin with https, or name this machine or an IP address",
        );
    }
    Some(TraceSettings {
        collector,
        sample_ratio: table.sample_ratio,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::from_text;

    fn with(table: &str) -> Result<crate::config::Settings, String> {
        let text = format!("auth.mode = \"open\"\nwiv.api_key_env = \"PATH\"\n[traces]\n{table}");
        from_text("c", &text, []).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn traces_are_off_until_a_collector_is_named() {
        assert_eq!(with("").unwrap().traces, None);
        assert_eq!(
            with("otlp_endpoint = \"\"\nsample_ratio = 1")
                .unwrap()
                .traces,
            None
        );
        let on = with("otlp_endpoint = \"http://127.0.0.1:4318/\"").unwrap();
        let on = on.traces.unwrap();
        assert_eq!(on.collector.to_string(), "http://127.0.0.1:4318");
        assert_eq!((on.sample_ratio, on.headers), (0.01, None));
    }

    #[test]
    fn shares_are_numbers_from_0_to_1() {
        for (text, share) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1.0", 1.0)] {
            let line = format!("otlp_endpoint = \"http://a:1\"\nsample_ratio = {text}");
            assert_eq!(with(&line).unwrap().traces.unwrap().sample_ratio, share);
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
            assert!(
                with_headers(good)
                    .unwrap()
                    .traces
                    .unwrap()
                    .headers
                    .is_some()
            );
        }
        let why = with_headers("http://otel-collector:4318").unwrap_err();
        assert!(
            why.starts_with("c:5: traces.headers_file: would be sent unencrypted"),
            "{why}"
        );
        assert!(with("otlp_endpoint = \"http://otel-collector:4318\"").is_ok());
    }
}
