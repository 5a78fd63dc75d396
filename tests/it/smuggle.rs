//! Framing headers mutated one byte at a time, the way tools that look for request smuggling do,
//! each with a marked request in it. A strict reader written here says what the bytes mean; the
//! gateway reads the same out of them or refuses, and a refusal ends the connection.

use crate::hostile::gateway;
use crate::whole::{ALL, Whole, get};

/// Cases that one gateway sees: its log is read after each.
const CASES_MAX: usize = 200;

/// Asks N-able, which nothing else here does.
fn marked() -> Vec<u8> {
    get("/v1/billing/202609", ALL).into_bytes()
}

// ------------------------------------------------------------------------------------------------
// A strict reader
// ------------------------------------------------------------------------------------------------

/// What the first request of some bytes is.
#[derive(Debug)]
enum Reading {
    /// None that two readers certainly read alike.
    Refused,
    /// It goes on where the bytes end.
    Unfinished,
    /// It ends here.
    Ends(usize),
    /// It says its length twice: the coding rules, and nothing after it counts.
    EndsTheConnection,
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

fn is_token(name: &[u8]) -> bool {
    let letter = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(b);
    !name.is_empty() && name.iter().all(letter)
}

fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |e| e + 1);
    &value[start..end]
}

fn is_text(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| matches!(b, b' '..=b'~' | b'\t' | 0x80..))
}

fn read(bytes: &[u8]) -> Reading {
    let mut lines = Vec::new();
    let mut body = 0;
    // A bare LF may end a line (RFC 9112, 2.2) and ends it for everybody who takes it at all.
    loop {
        let Some(end) = bytes[body..].iter().position(|b| *b == b'\n') else {
            return Reading::Unfinished;
        };
        let line = &bytes[body..body + end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        body += end + 1;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Reading::Refused;
        };
        let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
        if !is_token(name) || !is_text(value) {
            return Reading::Refused;
        }
        match &*name.to_ascii_lowercase() {
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            b"host" => hosts += 1,
            b"upgrade" => return Reading::Refused,
            _ => {}
        }
    }
    if hosts != 1 || !is_text(lines[0]) {
        return Reading::Refused;
    }
    let length = match lengths.as_slice() {
        [] => None,
        [first, others @ ..] => {
            let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(first).ok().and_then(|d| d.parse().ok());
            match number.filter(|_: &usize| digits && others.iter().all(|o| o == first)) {
                None => return Reading::Refused,
                number => number,
            }
        }
    };
    match (codings.as_slice(), length) {
        ([], None) => Reading::Ends(body),
        ([], Some(length)) if body + length <= bytes.len() => Reading::Ends(body + length),
        ([], Some(_)) => Reading::Unfinished,
        ([coding], length) if coding.eq_ignore_ascii_case(b"chunked") => {
            match (chunks(bytes, body), length) {
                (Reading::Ends(_), Some(_)) => Reading::EndsTheConnection,
                (reading, _) => reading,
            }
        }
        _ => Reading::Refused,
    }
}

/// Where a chunked body ends.
fn chunks(bytes: &[u8], mut at: usize) -> Reading {
    loop {
        let Some(end) = position(&bytes[at..], b"\r\n") else {
            return Reading::Unfinished;
        };
        let line = &bytes[at..at + end];
        let size = line.iter().position(|b| *b == b';').unwrap_or(line.len());
        let (size, extension) = line.split_at(size);
        // Blanks may stand before an extension, and only there; what an extension says is ignored,
        // so it may say anything on its line.
        let size = trimmed(size);
        let digits = !size.is_empty()
            && size.iter().all(u8::is_ascii_hexdigit)
            && line.first().is_some_and(u8::is_ascii_hexdigit);
        let number = std::str::from_utf8(size).ok();
        let number = number.and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(number) = number.filter(|_| digits && !extension.contains(&b'\r')) else {
            return Reading::Refused;
        };
        at += end + 2;
        if number == 0 {
            return match position(&bytes[at.saturating_sub(2)..], b"\r\n\r\n") {
                Some(end) if is_trailer(&bytes[at..(at + end).max(at)]) => {
                    Reading::Ends(at + end + 2)
                }
                Some(_) => Reading::Refused,
                None => Reading::Unfinished,
            };
        }
        match bytes.get(at..).and_then(|rest| rest.get(number..)) {
            Some([b'\r', b'\n', ..]) => at += number + 2,
            Some([] | [b'\r']) | None => return Reading::Unfinished,
            Some(_) => return Reading::Refused,
        }
    }
}

/// Trailers are dropped, so what they say does not matter, only where they end.
fn is_trailer(lines: &[u8]) -> bool {
    let carriage = lines.iter().filter(|b| **b == b'\r').count();
    carriage == lines.windows(2).filter(|two| two == b"\r\n").count()
}

// ------------------------------------------------------------------------------------------------
// Mutations
// ------------------------------------------------------------------------------------------------

/// The bytes that are put in: those that some reader takes for a blank, a line's end or a part of a
/// name; all of them with `MSP_SMUGGLE=all`.
fn bytes_put_in() -> Vec<u8> {
    if std::env::var_os("MSP_SMUGGLE").is_some() {
        return (0..=255).collect();
    }
    let mut some: Vec<u8> = (0..=b' ').collect();
    some.extend(b"\"',:;+-_0x\\\x7f\x80\x85\xa0\xad\xc2\xff");
    some
}

/// A line with one byte in it wherever `{}` stands.
fn with_byte(pattern: &str, byte: u8) -> Vec<u8> {
    let (before, after) = pattern.split_once("{}").unwrap();
    [before.as_bytes(), &[byte], after.as_bytes()].concat()
}

/// Header lines that some reader takes for `NAME: VALUE`.
fn disguises(name: &str, value: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let (first, second) = name.split_once('-').unwrap();
    for byte in bytes_put_in() {
        for pattern in [
            format!("{name}{{}}: {value}"),
            format!("{{}}{name}: {value}"),
            format!("{name}:{{}}{value}"),
            format!("{name}: {value}{{}}"),
            format!("{first}{{}}{second}: {value}"),
            format!("X: x{{}}{name}: {value}"),
            format!("X: x\r{{}}{name}: {value}"),
        ] {
            all.push(with_byte(&pattern, byte));
        }
    }
    for line in [
        format!("{name}: {value}"),
        format!("{}: {}", name.to_uppercase(), value.to_uppercase()),
        format!("{name}:{value}"),
        format!("{name}: \t {value} \t "),
        format!("{name}:\r\n {value}"),
        format!("{name}:\n {value}"),
        format!("{name}\r\n : {value}"),
        format!("X: x\n{name}: {value}"),
        format!("X: x\r\n\r{name}: {value}"),
        format!("{name}: {value}\r\n{name}: {value}"),
        format!("{name}: x\r\n{name}: {value}"),
        format!("{name}: {value}\r\n{name}: x"),
        format!("{name}: {value}, {value}"),
        format!("{name}: x, {value}"),
        format!("{name}: {value}, x"),
        format!("{name}: ,{value}"),
        format!("{name}: {value},"),
        format!("{name}: \"{value}\""),
        format!("{name}: '{value}'"),
        format!("{name}: {value};x=y"),
        format!("{name}: +{value}"),
        format!("{name}: 0x{value}"),
        format!("{name}: 0{value}"),
        format!("{name}: "),
        format!("{name} {value}"),
        name.to_owned(),
        format!("{first}_{second}: {value}"),
        format!("{name}: {value}\r\nConnection: {name}"),
        format!("Connection: {name}, close\r\n{name}: {value}"),
    ] {
        all.push(line.into_bytes());
    }
    all
}

/// A request whose line is this and whose framing headers and body are those.
fn request(line: &str, framing: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{line} HTTP/1.1\r\nhost: x\r\n{ALL}").into_bytes();
    for header in framing {
        out.extend_from_slice(header);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// Everything that is tried with one request line.
fn cases(line: &str) -> Vec<Vec<u8>> {
    let marked = marked();
    let length = |n: usize| format!("Content-Length: {n}").into_bytes();
    let mut all = Vec::new();
    let ends_early = [b"0\r\n\r\n", &*marked].concat();
    let size = format!("{:x}\r\n", marked.len());
    let ends_late = [size.as_bytes(), &marked, b"\r\n0\r\n\r\n"].concat();
    for coding in disguises("Transfer-Encoding", "chunked") {
        // A reader of lengths sees one request, one of codings two; then the other way round.
        all.push(request(
            line,
            &[&length(ends_early.len()), &coding],
            &ends_early,
        ));
        all.push(request(line, &[&coding, &length(size.len())], &ends_late));
    }
    let long = format!("{}", marked.len());
    for other in disguises("Content-Length", &long) {
        all.push(request(line, &[&other], &marked));
        all.push(request(line, &[&length(0), &other], &marked));
    }
    for byte in bytes_put_in() {
        for pattern in [
            "{}2\r\n{\"\r\n0\r\n\r\n",
            "2{}\r\n{\"\r\n0\r\n\r\n",
            "2;{}\r\n{\"\r\n0\r\n\r\n",
            "2\r{}\n{\"\r\n0\r\n\r\n",
            "2\r\n{\"{}\r\n0\r\n\r\n",
            "2\r\n{\"\r{}\n0\r\n\r\n",
            "2\r\n{\"\r\n{}0\r\n\r\n",
            "2\r\n{\"\r\n0{}\r\n\r\n",
            "2\r\n{\"\r\n0\r\n{}: x\r\n\r\n",
            "2\r\n{\"\r\n0\r\nx: {}\r\n\r\n",
            "2\r\n{\"\r\n0\r\n\r{}\n",
        ] {
            let chunked = pattern.replacen("{\"", "\u{0}\u{0}", 1);
            let mut body = with_byte(&chunked, byte);
            // The two bytes of the chunk are a body in JSON.
            if let Some(at) = position(&body, b"\0\0") {
                body[at..at + 2].copy_from_slice(b"{}");
            }
            body.extend_from_slice(&marked);
            all.push(request(line, &[b"Transfer-Encoding: chunked"], &body));
        }
    }
    all
}

/// Whether the log holds a line about the marked request.
fn marked_ran(whole: &Whole) -> bool {
    let lines = whole.log.lines();
    let told = lines.iter().any(|line| line.contains("/v1/billing/202609"));
    let asked = whole.sandbox.requests();
    let reached = asked.iter().any(|r| r.target.contains("InvoicesReady"));
    assert!(told || !reached, "a request that nobody logged");
    told
}

/// Holds every case of a request line to the strict reader; returns (cases, refused).
async fn hold(line: &str) -> (usize, usize) {
    let marked = marked();
    let all = cases(line);
    let mut refused = 0;
    let mut whole = gateway();
    for (at, case) in all.iter().enumerate() {
        if at % CASES_MAX == 0 {
            whole = gateway();
        }
        let shown = String::from_utf8_lossy(case);
        let reading = read(case);
        let calls = whole.vendor_calls();
        let mut peer = whole.connect();
        peer.send(case).await;
        let said = peer.rest().await;
        let status = said.get(9..12).unwrap_or("none");
        let ran = marked_ran(&whole);
        // Empty lines before a request are skipped.
        let behind = |end: usize| {
            let line_end = |b: &u8| matches!(b, b'\r' | b'\n');
            let blank = case[end..].iter().take_while(|b| line_end(b)).count();
            case[end + blank..].starts_with(&marked)
        };
        let may_run = matches!(reading, Reading::Ends(end) if behind(end));
        assert!(may_run || !ran, "{shown:?}: {reading:?}, {said}");
        if matches!(reading, Reading::Refused) {
            assert!(
                matches!(status, "none" | "400" | "408" | "413" | "431"),
                "{shown:?}: {said}"
            );
            assert_eq!(
                said.matches("HTTP/1.1 ").count().max(1),
                1,
                "{shown:?}: {said}"
            );
            assert_eq!(whole.vendor_calls(), calls, "{shown:?}");
        }
        if status == "400" {
            refused += 1;
        }
        if ran {
            // Seen once, it cannot be seen again.
            whole = gateway();
        }
        assert_eq!(whole.metrics.panics.get(), 0, "{shown:?}");
    }
    (all.len(), refused)
}

#[tokio::test(start_paused = true)]
async fn disguised_framing_of_a_search_smuggles_nothing() {
    let (cases, refused) = hold("POST /v2/cases/msp/search").await;
    println!("smuggle: {cases} POST requests, {refused} answered 400");
    assert!(cases > 1_800 && refused > 1_200, "{cases} {refused}");
}

#[tokio::test(start_paused = true)]
async fn disguised_framing_of_a_list_smuggles_nothing() {
    let (cases, refused) = hold("GET /msp/customers").await;
    println!("smuggle: {cases} GET requests, {refused} answered 400");
    assert!(cases > 1_800 && refused > 1_200, "{cases} {refused}");
}

#[test]
fn the_strict_reader_reads() {
    let ends = |text: &str| match read(text.as_bytes()) {
        Reading::Ends(end) => Some(end),
        _ => None,
    };
    let head = "POST / HTTP/1.1\r\nhost: x\r\n";
    let plain = format!("{head}content-length: 2\r\n\r\n{{}}GET");
    assert_eq!(ends(&plain), Some(plain.len() - 3));
    let chunked =
        format!("{head}transfer-encoding: Chunked\r\n\r\n2 ;a\r\n{{}}\r\n0\r\nx: y\r\n\r\nGET");
    assert_eq!(ends(&chunked), Some(chunked.len() - 3));
    let bare = format!("{head}transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET");
    assert_eq!(ends(&bare), Some(bare.len() - 3));
    for bad in [
        "content-length: +2\r\n\r\n{}",
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "content-length : 2\r\n\r\n{}",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n 0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
        "x: 1\r\n y\r\n\r\n",
        "x: a\rb\r\n\r\n",
    ] {
        let reading = read(format!("{head}{bad}").as_bytes());
        assert!(matches!(reading, Reading::Refused), "{bad:?}: {reading:?}");
    }
}
