//! Renders answers of the admin listener as words for a terminal.

use std::fmt::Write as _;

use serde_json::Value;

/// Renders seconds as `1d 2h`, `3h 4m`, `5m 6s` or `7s`.
fn span(seconds: u64) -> String {
    let parts = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = parts.iter().position(|(_, unit)| seconds >= *unit);
    let Some((at, (name, unit))) = first.and_then(|at| Some((at, parts.get(at)?))) else {
        return "0s".to_owned();
    };
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((name, next)) = parts.get(at + 1) {
        let left = seconds % unit / next;
        if left > 0 {
            text.push_str(&format!(" {left}{name}"));
        }
    }
    text
}

/// Returns the value at a path such as `budget/remaining`. Null if there is none.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/')
        .fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Renders one vendor as one line: its state, and everything that is not as usual.
fn vendor(name: &str, of: &Value) -> String {
    let mut text = format!("{name:<6} {}", word(at(of, "state")));
    if at(of, "state") == "disabled" {
        return text;
    }
    let budget = at(of, "budget");
    let mut add = |what: String| {
        text.push_str(", ");
        text.push_str(&what);
    };
    add(format!(
        "budget {} of {} a minute left",
        number(at(budget, "remaining")),
        number(at(budget, "rate_limit"))
    ));
    add(format!(
        "{} of {} calls under way",
        number(at(budget, "in_flight")),
        number(at(budget, "concurrency_limit"))
    ));
    let queued: Vec<_> = at(budget, "queued")
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, calls)| number(calls) > 0)
        .map(|(lane, calls)| format!("{} {lane}", number(calls)))
        .collect();
    if !queued.is_empty() {
        add(format!("waiting: {}", queued.join(", ")));
    }
    if at(of, "circuit") != "closed" {
        let probe = at(of, "probe_in_ms").as_u64();
        let probe = probe.map_or(String::new(), |ms| format!(", next probe in {ms} ms"));
        add(format!("circuit {}{probe}", word(at(of, "circuit"))));
    }
    if at(of, "key_rejected") == true {
        add("our key is rejected".to_owned());
    }
    if let Some(left) = at(budget, "hold_down_s").as_u64() {
        add(format!("{} left of the wait that it asked for", span(left)));
    }
    if let Some(percent) = at(budget, "background/percent").as_u64() {
        add(format!("refreshes get {percent} % of the rate"));
    }
    text
}

/// Renders `/admin/status` in some ten lines.
pub fn status(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "msp-gateway {}, up {}{}",
        word(at(status, "version")),
        span(number(at(status, "uptime_s"))),
        if at(status, "draining") == true {
            ", leaving"
        } else {
            ""
        }
    );
    let vendors = at(status, "vendors").as_object();
    for (name, of) in vendors.into_iter().flatten() {
        let _ = writeln!(out, "{}", vendor(name, of));
    }
    let _ = writeln!(
        out,
        "{} requests in flight, {} exports running",
        number(at(status, "requests_in_flight")),
        number(at(status, "exports_running"))
    );
    let (scrolls, snapshots) = (at(status, "scrolls"), at(status, "snapshots"));
    let _ = writeln!(
        out,
        "{} of {} walks, {} of {} scrolls at wiv, {} searches waiting",
        number(at(scrolls, "open")),
        number(at(scrolls, "max")),
        number(at(scrolls, "at_vendor")),
        number(at(scrolls, "at_vendor_max")),
        number(at(scrolls, "searches_waiting"))
    );
    let _ = writeln!(
        out,
        "{} snapshots, {} of {}",
        number(at(snapshots, "entries")),
        mebibytes(number(at(snapshots, "bytes"))),
        mebibytes(number(at(snapshots, "bytes_max")))
    );
    let state = word(at(status, "store/state"));
    if !["-", "off"].contains(&state) {
        let bytes = mebibytes(number(at(status, "store/bytes")));
        let _ = writeln!(out, "store {state}, {bytes}");
    }
    let replicas = at(status, "store/replicas").as_u64();
    if let Some(replicas) = replicas {
        let alone = number(at(status, "store/detached"));
        let _ = writeln!(
            out,
            "{replicas} gateways share the store; {alone} lists can be continued here only"
        );
    }
    for certificate in at(status, "certificates").as_array().into_iter().flatten() {
        let listener = word(at(certificate, "listener"));
        let _ = match at(certificate, "ends_in_s").as_u64() {
            Some(left) => writeln!(out, "certificate of {listener} ends in {}", span(left)),
            None => writeln!(out, "certificate of {listener} has ended"),
        };
    }
    let dropped = ["log_lines", "spans"].map(|what| number(at(at(status, "dropped"), what)));
    if dropped != [0, 0] {
        let [lines, spans] = dropped;
        let _ = writeln!(out, "dropped: {lines} log lines, {spans} spans");
    }
    let background = number(at(status, "background/vendor_calls"));
    let _ = writeln!(out, "vendor calls, {background} of them in the background:");
    for caller in at(status, "callers").as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "  {:<24} caused {:>8}  saved {:>8}  last used {}",
            word(at(caller, "name")),
            number(at(caller, "vendor_calls")),
            number(at(caller, "vendor_calls_saved")),
            at(caller, "last_used").as_str().unwrap_or("never")
        );
    }
    out
}

/// Renders `/admin/explain` as the steps that the request would take.
pub fn explanation(explained: &Value) -> String {
    match at(explained, "parts").as_object() {
        Some(parts) => parts
            .iter()
            .map(|(name, part)| match part {
                Value::Null => format!("{name}: not for this caller\n"),
                part => format!("{name}:\n{}", steps(part)),
            })
            .collect(),
        None => steps(explained),
    }
}

fn steps(of: &Value) -> String {
    let mut lines = Vec::new();
    if let Some(identity) = at(of, "identity").as_str() {
        lines.push(format!("The cache key is {identity}."));
    }
    let age = at(of, "age_s").as_u64().map(span);
    lines.push(match (at(of, "held") == true, &age) {
        (true, Some(age)) if at(of, "negative") == true => {
            format!("A negative answer of the vendor is in memory, {age} old.")
        }
        (true, Some(age)) => format!("An answer is in memory, {age} old."),
        (true, None) => "An answer is in memory.".to_owned(),
        (false, _) => "Nothing is in memory for it.".to_owned(),
    });
    if let Some(source) = at(of, "derived_from").as_str() {
        lines.push(format!("It would be selected from {source}."));
    }
    if let Some(rows) = at(of, "snapshot/rows").as_u64() {
        let end = word(at(of, "snapshot/end"));
        lines.push(format!("Its snapshot holds {rows} rows and is {end}."));
    }
    let policy = at(of, "policy");
    let of_policy = |member: &str| span(number(&policy[member]));
    let kind = match at(policy, "grade").as_str() {
        Some(grade) => format!("Answers of this kind ({grade})"),
        None => "Such answers".to_owned(),
    };
    lines.push(format!(
        "{kind} are fresh for {}, then stale for {}, and usable on error for {} after that.",
        of_policy("fresh_s"),
        of_policy("stale_s"),
        of_policy("on_error_s")
    ));
    lines.push(match at(of, "standing").as_str() {
        Some("fresh") => "It is fresh: it would be served as it is.".to_owned(),
        Some("stale") => "It is stale: it would be served at once, while a refresh runs.".to_owned(),
        Some("on_error") => {
            "It is older than stale: it would be served if the vendor gives no newer answer in two seconds."
                .to_owned()
        }
        _ => "There is no usable answer: the caller would wait for the vendor.".to_owned(),
    });
    if at(of, "under_way") == true {
        lines.push("A vendor call for it is in progress and would be shared.".to_owned());
    }
    lines.push(match at(of, "call") {
        Value::Null => "No vendor would be called.".to_owned(),
        call => format!(
            "The vendor {} would be called ({}), in the lane {}.",
            word(at(call, "vendor")),
            word(at(call, "operation")),
            word(at(of, "lane"))
        ),
    });
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        let _ = writeln!(out, "{}. {line}", number + 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (90_061, "1d 1h"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn of_a_vendor_only_what_is_unusual_is_told() {
        let budget = json!({
            "remaining": 3, "rate_limit": 120, "in_flight": 1, "concurrency_limit": 8,
            "queued": {"interactive": 0, "refresh": 2}, "hold_down_s": null, "background": null,
        });
        let mut of = json!({
            "state": "ok", "circuit": "closed", "probe_in_ms": null, "key_rejected": false,
            "budget": budget,
        });
        let usual =
            "wiv    ok, budget 3 of 120 a minute left, 1 of 8 calls under way, waiting: 2 refresh";
        assert_eq!(vendor("wiv", &of), usual);
        of["circuit"] = "open".into();
        of["probe_in_ms"] = 400.into();
        of["key_rejected"] = true.into();
        of["budget"]["hold_down_s"] = 90.into();
        let told = vendor("wiv", &of);
        for words in [
            "circuit open, next probe in 400 ms",
            "our key is rejected",
            "1m 30s left of the wait that it asked for",
        ] {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(
            vendor("nable", &json!({"state": "disabled"})),
            "nable  disabled"
        );
    }
}
