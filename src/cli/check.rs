//! `msp-gateway check`: would the gateway start with these settings?

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::operate::AnswerFormat;
use crate::config::{self, Refusal, Settings, SettingsAt};

/// What to check, and how to show it.
#[derive(Args, Default)]
pub struct Check {
    /// The settings, - for standard input; without it, defaults and the environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TOML with where each setting came from, or one JSON object with what is wrong in it, too
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
    /// Show only what differs from its default
    #[arg(long)]
    changed: bool,
    /// Print the JSON schema of the settings, for editors
    #[arg(long, exclusive = true)]
    schema: bool,
}

/// What was found.
struct Found {
    settings: Settings,
    warnings: Vec<String>,
}

impl Check {
    /// Validates settings and secrets. Prints the settings in force to `out`, problems and warnings
    /// to `err`, one a line; as JSON all of it to `out`. Returns the exit code: 0 fine, 1 refused.
    pub fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
        if self.schema {
            return write(&format!("{:#}\n", config::json_schema()), out, err);
        }
        let found = self.found();
        if self.format == AnswerFormat::Json {
            let code = i32::from(found.is_err());
            let shown = match found {
                Ok(found) => self.as_json(&found),
                Err(refusal) => refused(&refusal),
            };
            return write(&format!("{shown}\n"), out, err).max(code);
        }
        match found {
            Ok(found) => {
                for warning in &found.warnings {
                    let _ = writeln!(err, "warning: {warning}");
                }
                let text = match self.changed {
                    true => found.settings.changed(),
                    false => found.settings.effective(),
                };
                write(&text, out, err)
            }
            Err(refusal) => tell(err, &refusal.to_string()),
        }
    }

    fn found(&self) -> Result<Found, Refusal> {
        let mut settings = match self.config.as_deref() {
            None => config::load(None)?,
            Some(path) => SettingsAt::named(path)?.load()?,
        };
        let secrets = settings.read_secrets()?;
        let mut warnings = std::mem::take(&mut settings.warnings);
        warnings.extend(secrets.warnings);
        Ok(Found { settings, warnings })
    }

    fn as_json(&self, found: &Found) -> Value {
        let shown = found.settings.shown();
        let settings: Vec<_> = shown
            .iter()
            .filter(|setting| !self.changed || !setting.is_default())
            .map(|setting| {
                json!({
                    "setting": setting.path,
                    "value": setting.json(),
                    "source": setting.origin,
                })
            })
            .collect();
        json!({
            "ok": true,
            "settings": settings,
            "warnings": found.warnings,
            "problems": [],
        })
    }
}

fn refused(refusal: &Refusal) -> Value {
    let problems: Vec<_> = refusal
        .problems
        .iter()
        .map(|problem| {
            json!({
                "place": problem.place.to_string(),
                "setting": problem.path,
                "problem": problem.text,
            })
        })
        .collect();
    json!({"ok": false, "settings": [], "warnings": [], "problems": problems})
}

fn write(text: &str, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        // The reader went away; `check | head` is no failure.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(why) => tell(err, &super::unwritten(&why)),
    }
}

fn tell(err: &mut dyn Write, lines: &str) -> i32 {
    // If this cannot be printed, the exit code still shows the failure.
    let _ = writeln!(err, "{lines}");
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str) -> (i32, String, String) {
        check_on(text, |_| {})
    }

    fn check_on(text: &str, how: impl Fn(&mut Check)) -> (i32, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut check = Check {
            config: Some(path),
            ..Check::default()
        };
        how(&mut check);
        let code = check.run(&mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn settings_in_force_are_shown_with_their_origin() {
        let (code, out, err) =
            run_on("[auth]\nmode = \"open\"\n[wiv]\ntimeout = \"90s\"\napi_key_env = \"PATH\"\n");
        assert_eq!(code, 0, "{err}");
        assert_eq!(err, "");
        let line = |start: &str| out.lines().find(|l| l.starts_with(start)).unwrap();
        assert!(line("mode = \"open\" # ").ends_with("config.toml"));
        assert!(line("timeout = \"1m30s\" # ").ends_with("config.toml"));
        assert_eq!(line("derive_customer"), "derive_customer = true # default");
        // It is TOML still.
        toml::from_str::<toml::Table>(&out).unwrap();
    }

    #[test]
    fn a_named_secret_that_is_missing_refuses() {
        let (code, out, err) =
            run_on("auth.mode = \"open\"\nwiv.api_key_env = \"MSP_GATEWAY_TEST_SURELY_UNSET\"\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("config.toml:2: wiv.api_key_env: "), "{err}");
        assert!(
            err.contains("MSP_GATEWAY_TEST_SURELY_UNSET is not set"),
            "{err}"
        );
        assert_eq!(err.lines().count(), 1);
    }

    #[test]
    fn only_what_was_given_is_shown_on_request() {
        let text = "auth.mode = \"open\"\nlog.access = false\n[wiv]\ntimeout = \"90s\"\napi_key_env = \"PATH\"\n";
        let (code, out, _) = check_on(text, |check| check.changed = true);
        assert_eq!(code, 0);
        let plain: Vec<_> = out.lines().filter_map(|l| l.split(" # ").next()).collect();
        let expected = [
            "[auth]",
            "mode = \"open\"",
            "",
            "[wiv]",
            "api_key_env = \"PATH\"",
            "timeout = \"1m30s\"",
            "",
            "[log]",
            "access = false",
        ];
        assert_eq!(plain, expected, "{out}");
        toml::from_str::<toml::Table>(&out).unwrap();
    }

    #[test]
    fn json_holds_settings_warnings_and_problems() {
        let json = |check: &mut Check| check.format = AnswerFormat::Json;
        let (code, out, err) = check_on(
            "auth.mode = \"open\"\n[wiv]\napi_key_env = \"PATH\"\ntimeout = \"90s\"\n[nable]\noptional = true\napi_key_file = \"/no/such\"\naccount_id = \"A\"\n",
            json,
        );
        assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1));
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["ok"], true);
        let of = |name: &str| {
            let all = told["settings"].as_array().unwrap();
            all.iter().find(|s| s["setting"] == name).unwrap().clone()
        };
        assert_eq!(of("wiv.timeout")["value"], "1m30s");
        assert!(
            of("wiv.timeout")["source"]
                .as_str()
                .unwrap()
                .ends_with("config.toml")
        );
        assert_eq!(of("wiv.requests_per_minute")["value"], 120);
        assert_eq!(of("cases.derive_customer")["source"], "default");
        assert!(!told["warnings"].as_array().unwrap().is_empty());
        let (code, out, _) = check_on("wiv.timeout = 7\nwiv.colour = 1\n", json);
        assert_eq!(code, 1);
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["ok"], false);
        let problems = told["problems"].as_array().unwrap();
        let settings: Vec<_> = problems
            .iter()
            .map(|p| p["setting"].as_str().unwrap())
            .collect();
        assert!(settings.contains(&"wiv.timeout") && settings.contains(&"wiv.colour"));
        let timeout = problems.iter().find(|p| p["setting"] == "wiv.timeout");
        let place = timeout.unwrap()["place"].as_str().unwrap();
        assert!(place.ends_with("config.toml:1"), "{place}");
    }
}
