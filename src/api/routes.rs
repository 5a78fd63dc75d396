//! The table of routes: the reference for matching, for `Allow`, for reading questions and for
//! `/openapi.json`. Words and paths are those of `domain::Route`. Each file in the folder `routes`
//! reads the requests of one route.

mod billing;
pub(super) mod case_changes;
pub(super) mod case_export;
pub(super) mod case_search;
pub(super) mod customers;
pub(super) mod events;
mod nable_drop_in;
pub(super) mod overview;

use http::Method;

use super::openapi::{self, Described};
use super::question::{Asked, Question};
use super::{docs, keyless};
use crate::domain::Route;
use crate::exchange::call::PARAMS_MAX;
use crate::exchange::{BodyRule, Matched, Routing};
use crate::problem::Problem;

/// The methods of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// GET and HEAD.
    Get,
    /// POST.
    Post,
    /// POST, and QUERY (RFC 10008), which does the same and is safe.
    PostAndQuery,
}

impl Methods {
    /// Returns the value of `Allow`.
    pub const fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::PostAndQuery => "POST, QUERY",
        }
    }

    fn has(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
            Self::PostAndQuery => method == Method::POST || method.as_str() == "QUERY",
        }
    }
}

/// Reads a request of a route.
pub type Reader = fn(Asked<'_>) -> Result<Question, Problem>;

/// One line of the table.
#[derive(Debug)]
pub struct Line {
    /// The route.
    pub route: Route,
    /// The path's segments, with `{name}` for a parameter.
    pub pattern: &'static str,
    /// The methods.
    pub methods: Methods,
    /// How its body is treated.
    pub body: BodyRule,
    /// Reads its requests.
    pub read: Reader,
    /// Its description in `/openapi.json`.
    pub described: &'static Described,
    /// Length of the pattern before its first parameter, if it has one.
    fixed: Option<usize>,
}

const fn line(
    route: Route,
    methods: Methods,
    body: BodyRule,
    read: Reader,
    described: &'static Described,
) -> Line {
    let pattern = match route.template() {
        Some(pattern) => pattern,
        // Only for `Route::Other`, which is no line of the table.
        None => "",
    };
    let (mut rest, mut at) = (pattern.as_bytes(), 0);
    let fixed = loop {
        match rest.split_first() {
            None => break None,
            Some((b'{', _)) => break Some(at),
            Some((_, after)) => (rest, at) = (after, at + 1),
        }
    };
    Line {
        route,
        pattern,
        methods,
        body,
        read,
        described,
        fixed,
    }
}

/// Every route of the public listener, in the order for readers of `/openapi.json`. The routes that
/// are asked most come first.
pub const TABLE: &[Line] = &[
    line(
        Route::Customers,
        Methods::Get,
        BodyRule::Ignored,
        customers::read,
        &customers::DESCRIBED,
    ),
    line(
        Route::CaseSearch,
        Methods::PostAndQuery,
        BodyRule::Json,
        case_search::read,
        &case_search::DESCRIBED,
    ),
    line(
        Route::CaseExport,
        Methods::Get,
        BodyRule::Ignored,
        case_export::read,
        &case_export::DESCRIBED,
    ),
    line(
        Route::CaseChanges,
        Methods::Get,
        BodyRule::Ignored,
        case_changes::read,
        &case_changes::DESCRIBED,
    ),
    line(
        Route::Events,
        Methods::Get,
        BodyRule::Ignored,
        events::read,
        &events::DESCRIBED,
    ),
    line(
        Route::Overview,
        Methods::Get,
        BodyRule::Ignored,
        overview::read,
        &overview::DESCRIBED,
    ),
    line(
        Route::BillingMonth,
        Methods::Get,
        BodyRule::Ignored,
        billing::read_month,
        &billing::MONTH_DESCRIBED,
    ),
    line(
        Route::Billing,
        Methods::Get,
        BodyRule::Ignored,
        billing::read,
        &billing::DESCRIBED,
    ),
    line(
        Route::NableBilling,
        Methods::Post,
        BodyRule::JsonOrNothing,
        nable_drop_in::read,
        &nable_drop_in::DESCRIBED,
    ),
    line(
        Route::NableInvoices,
        Methods::Post,
        BodyRule::JsonOrNothing,
        nable_drop_in::read_invoices,
        &nable_drop_in::INVOICES_DESCRIBED,
    ),
    line(
        Route::OpenApi,
        Methods::Get,
        BodyRule::Ignored,
        keyless::read,
        &openapi::DESCRIBED,
    ),
    line(
        Route::Docs,
        Methods::Get,
        BodyRule::Ignored,
        keyless::read,
        &docs::DESCRIBED,
    ),
    line(
        Route::Health,
        Methods::Get,
        BodyRule::Ignored,
        keyless::read,
        &keyless::HEALTH_DESCRIBED,
    ),
];

/// Finds the route. The path is compared as sent. Nothing is decoded, folded or trimmed first, so
/// that no two spellings of a path reach the same route.
pub fn find(method: &Method, path: &str) -> Routing {
    let Some((line, params)) = TABLE.iter().find_map(|line| Some((line, fit(line, path)?))) else {
        return match is_balancers_check(method, path) {
            true => Routing::Found(Matched {
                route: Route::Health,
                body: BodyRule::Ignored,
                params: [(0, 0); PARAMS_MAX],
            }),
            false => Routing::Unknown,
        };
    };
    if !line.methods.has(method) {
        return Routing::WrongMethod {
            route: line.route,
            allow: line.methods.allow(),
        };
    }
    Routing::Found(Matched {
        route: line.route,
        body: line.body,
        params,
    })
}

/// Finds the route if `docs` is off in `[listen]`: `/docs` does not exist then.
pub fn find_without_docs(method: &Method, path: &str) -> Routing {
    match find(method, path) {
        Routing::Found(Matched {
            route: Route::Docs, ..
        })
        | Routing::WrongMethod {
            route: Route::Docs, ..
        } => Routing::Unknown,
        found => found,
    }
}

/// Returns whether this is `OPTIONS /`, with which HAProxy checks a server by default, or `OPTIONS
/// *`, which is about the server as a whole (RFC 9110, section 9.3.7). Both check whether it is
/// alive.
fn is_balancers_check(method: &Method, path: &str) -> bool {
    method == Method::OPTIONS && matches!(path, "/" | "*")
}

/// Returns the positions of the pattern's parameters in `path`, or `None` if the path does not
/// match. A parameter takes one segment and is never empty.
fn fit(line: &Line, path: &str) -> Option<[(u16, u16); PARAMS_MAX]> {
    let mut params = [(0, 0); PARAMS_MAX];
    let pattern = line.pattern;
    let Some(mut at) = line.fixed else {
        return (pattern == path).then_some(params);
    };
    let mut rest = path.strip_prefix(pattern.get(..at)?)?;
    let mut wanted = pattern.get(at..)?.split('/').peekable();
    let mut free = params.iter_mut();
    while let Some(piece) = wanted.next() {
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        if piece.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            let end = at + segment.len();
            *free.next()? = (u16::try_from(at).ok()?, u16::try_from(end).ok()?);
        } else if piece != segment {
            return None;
        }
        at += segment.len() + 1;
        match (after, wanted.peek()) {
            (None, None) => return Some(params),
            (Some(after), Some(_)) => rest = after,
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> Option<(Route, Vec<String>)> {
        match find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
            Routing::Found(matched) => {
                let params = (0..PARAMS_MAX).map(|at| matched.param(path, at).to_owned());
                let params = params.filter(|p| !p.is_empty()).collect();
                Some((matched.route, params))
            }
            Routing::WrongMethod { .. } | Routing::Unknown => None,
        }
    }

    #[test]
    fn every_line_is_found_by_its_own_pattern() {
        for line in TABLE {
            for method in line.methods.allow().split(", ") {
                assert_eq!(
                    route(method, line.pattern).map(|(r, _)| r),
                    Some(line.route),
                    "{method} {}",
                    line.pattern
                );
            }
            let fixed = line.fixed.is_none().then_some(line.pattern);
            assert_eq!(line.route.fixed_path(), fixed);
            assert_eq!(line.route.template(), Some(line.pattern));
        }
        // Every route except `Other`, which has no path.
        assert_eq!(TABLE.len(), Route::ALL.len() - 1);
    }

    #[test]
    fn parameters_are_whole_segments() {
        let found = |p: &str| route("GET", p).map(|(_, params)| params.join("|"));
        assert_eq!(found("/v1/billing/202409/c-1"), Some("202409|c-1".into()));
        assert_eq!(found("/v1/billing/202409"), Some("202409".into()));
        // A pattern used as a path is a path like any other.
        assert_eq!(found("/v1/billing/{timeframe}"), Some("{timeframe}".into()));
        assert_eq!(
            route(
                "POST",
                "/ws/rest/V1/PSA_API/PSABillableServices/-/202409/c%7C1"
            ),
            Some((
                Route::NableBilling,
                vec!["-".into(), "202409".into(), "c%7C1".into()]
            ))
        );
    }

    #[test]
    fn other_spellings_are_other_paths() {
        for path in [
            "/",
            "*",
            "",
            "/msp/customers/",
            "//msp/customers",
            "/msp//customers",
            "/msp/customers/x.css",
            "/msp/customers;a.css",
            "/msp/customers%2f..%2fx",
            "/msp/customers/.",
            "/msp/customers.",
            "/msp/./customers",
            "/MSP/customers",
            "/%6dsp/customers",
            "/msp/customers%00",
            "/v1/billing",
            "/v1/billing/",
            "/v1/billing//c",
            "/v1/billing/202409/",
            "/v1/billing/202409/c/",
            "/v1/billing/202409/c/d",
            "/metrics",
            "/healthz/",
            "/docs/",
            "/readyz",
            "/admin/status",
            "/admin/purge",
            "/admin/explain",
            "/ws/rest/V1/PSA_API/PSABillableServices/-/202409",
            "/ws/rest/V1/PSA_API/workflows/x/run",
        ] {
            for method in ["GET", "POST"] {
                let found = find(&Method::from_bytes(method.as_bytes()).unwrap(), path);
                assert_eq!(found, Routing::Unknown, "{method} {path}");
            }
        }
    }

    #[test]
    fn a_load_balancers_check_needs_no_path() {
        for path in ["/", "*"] {
            assert_eq!(route("OPTIONS", path), Some((Route::Health, Vec::new())));
        }
        assert_eq!(route("OPTIONS", "/msp/customers"), None);
        assert_eq!(route("OPTIONS", "/nothing"), None);
    }

    #[test]
    fn the_page_can_be_switched_off() {
        let without = |method, path| find_without_docs(&method, path);
        assert_eq!(without(Method::GET, "/docs"), Routing::Unknown);
        assert_eq!(without(Method::POST, "/docs"), Routing::Unknown);
        for path in ["/openapi.json", "/healthz", "/msp/customers"] {
            assert_eq!(without(Method::GET, path), find(&Method::GET, path));
        }
    }

    #[test]
    fn a_known_path_names_its_methods() {
        let query = Method::from_bytes(b"QUERY").unwrap();
        let allow = |method: &Method, path| match find(method, path) {
            Routing::WrongMethod { allow, .. } => Some(allow),
            Routing::Found(_) | Routing::Unknown => None,
        };
        assert_eq!(allow(&Method::POST, "/msp/customers"), Some("GET, HEAD"));
        assert_eq!(allow(&query, "/msp/customers"), Some("GET, HEAD"));
        assert_eq!(
            allow(&Method::HEAD, "/v2/cases/msp/search"),
            Some("POST, QUERY")
        );
        assert_eq!(allow(&query, "/v2/cases/msp/search"), None);
        let lower = Method::from_bytes(b"get").unwrap();
        assert_eq!(allow(&lower, "/msp/customers"), Some("GET, HEAD"));
    }
}
