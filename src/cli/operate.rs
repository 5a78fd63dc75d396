//! `msp-gateway status`, `explain`, `purge`, `resume` and `healthcheck`: commands for a running
//! gateway. They use its admin listener.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::remote::{Remote, encoded};
use super::told::at;
use super::{FINE, REFUSED, told};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum AnswerFormat {
    /// For people.
    #[default]
    Text,
    /// As the admin listener sends it.
    Json,
}

/// A command against a running gateway.
#[derive(Subcommand)]
pub(super) enum Operate {
    /// Show how a running gateway is doing
    Status {
        #[command(flatten)]
        remote: Remote,
        /// For people, or as the admin listener sends it
        #[arg(long, value_enum, default_value_t)]
        format: AnswerFormat,
    },
    /// Show how a running gateway would answer a request, without a vendor call
    Explain {
        /// A path of the public listener with its query, such as "/msp/customers?fields=id"
        target: String,
        /// Its method; without it, POST if there is a body, otherwise GET
        #[arg(long)]
        method: Option<String>,
        /// Its body
        #[arg(long)]
        body: Option<String>,
        /// The caller that would send the request
        #[arg(long)]
        caller: Option<String>,
        #[command(flatten)]
        remote: Remote,
        /// For people, or as the admin listener sends it
        #[arg(long, value_enum, default_value_t)]
        format: AnswerFormat,
    },
    /// Make a running gateway fetch its remembered answers again
    Purge {
        #[command(flatten)]
        what: PurgeWhat,
        /// Also remove the answers, so that none is left for an outage, and end page tokens
        #[arg(long)]
        hard: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// End the wait that a vendor asked a running gateway for
    Resume {
        /// wiv or nable
        vendor: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Exit with 0 if a running gateway answers, otherwise with 1
    Healthcheck {
        /// Check whether the gateway should get requests, not only whether it is alive
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

/// What to purge.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct PurgeWhat {
    /// Answers that mention one customer
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// One kind of answer: customers, cases or billing
    #[arg(long)]
    kind: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl PurgeWhat {
    fn body(&self, soft: bool) -> Value {
        match (&self.customer, &self.kind) {
            (Some(customer), _) => json!({"customer": customer, "soft": soft}),
            (None, Some(kind)) => json!({"kind": kind, "soft": soft}),
            (None, None) => json!({"all": true, "soft": soft}),
        }
    }

    fn words(&self) -> String {
        match (&self.customer, &self.kind) {
            (Some(customer), _) => format!("everything that mentions the customer {customer}"),
            (None, Some(kind)) => format!("all {kind}"),
            (None, None) => "everything".to_owned(),
        }
    }
}

impl Operate {
    /// Sends the request. Prints the answer to `out`, or one line to `err` that says why there is
    /// none. Returns the exit code: 0 fine, 1 refused.
    pub(super) fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
        let (text, code) = match self.answer() {
            Ok(answer) => answer,
            Err(why) => {
                // If this cannot be printed, the exit code still shows the failure.
                let _ = writeln!(err, "msp-gateway: {why}");
                return REFUSED;
            }
        };
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            Ok(()) => code,
            Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => code,
            Err(why) => {
                let _ = writeln!(err, "msp-gateway: {}", super::unwritten(&why));
                REFUSED
            }
        }
    }

    /// Returns the text and the exit code.
    fn answer(&self) -> Result<(String, i32), String> {
        let fine = |text: String| Ok((text, FINE));
        match self {
            Self::Status { remote, format } => {
                let status = remote.ask(Method::GET, "/admin/status", None)?.json();
                fine(match format {
                    AnswerFormat::Json => status.to_string(),
                    AnswerFormat::Text => told::status(&status),
                })
            }
            Self::Explain {
                target,
                method,
                body,
                caller,
                remote,
                format,
            } => {
                let by_body = if body.is_some() { "POST" } else { "GET" };
                let method = method.as_deref().unwrap_or(by_body);
                let mut query = format!("method={}&target={}", encoded(method), encoded(target));
                for (name, value) in [("body", body), ("caller", caller)] {
                    if let Some(value) = value {
                        query.push_str(&format!("&{name}={}", encoded(value)));
                    }
                }
                let path = format!("/admin/explain?{query}");
                let explained = remote.ask(Method::GET, &path, None)?.json();
                fine(match format {
                    AnswerFormat::Json => explained.to_string(),
                    AnswerFormat::Text => told::explanation(&explained),
                })
            }
            Self::Purge { what, hard, remote } => {
                let body = what.body(!hard);
                let answer = remote.ask(Method::POST, "/admin/purge", Some(&body))?;
                let count = at(&answer.json(), "purged").as_u64().unwrap_or(0);
                let effect = if *hard {
                    "removed; their page tokens have ended"
                } else {
                    "fetched again at the next request"
                };
                fine(format!("purged {count} ({}): {effect}", what.words()))
            }
            Self::Resume { vendor, remote } => {
                let body = json!({"vendor": vendor});
                let answer = remote
                    .ask(Method::POST, "/admin/resume", Some(&body))?
                    .json();
                fine(match at(&answer, "left_s").as_u64() {
                    Some(left) => format!("{vendor} is called again, {left} s before its time"),
                    None => format!("{vendor} asked for no wait"),
                })
            }
            Self::Healthcheck { ready, remote } => {
                let path = if *ready { "/readyz" } else { "/healthz" };
                let told = remote.send(Method::GET, path, None)?;
                let code = match told.status {
                    StatusCode::OK => FINE,
                    _ => REFUSED,
                };
                Ok((String::from_utf8_lossy(&told.body).into_owned(), code))
            }
        }
    }
}
