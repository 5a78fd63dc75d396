//! Decides who may purge and explain.

use std::sync::Arc;

use http::header;
use http::request::Parts;

use crate::access::{Caller, CallerBook, ClientCertificate, Role, Tenure};
use crate::exchange::credentials::{Presented, presented};
use crate::exchange::site::{OwnNames, is_from_another_site};
use crate::problem::{Code, Problem};

/// Returns the operator who sent the request. On a loopback listener no key is needed.
pub(super) fn operator(
    head: &Parts,
    certificate: Option<&ClientCertificate>,
    callers: &CallerBook,
    names: &OwnNames,
    loopback: bool,
) -> Result<Option<Arc<Caller>>, Problem> {
    refuse_other_sites(head, names)?;
    let caller = match presented(&head.headers) {
        Presented::CallerKey(text) => callers.find(Some(text), certificate),
        Presented::Nothing => callers.find(None, certificate),
        Presented::Unclear => None,
    };
    match caller {
        _ if loopback => Ok(caller),
        None => Err(Problem::authentication_required(certificate.is_some())),
        Some(caller) if caller.role == Role::Operator => Ok(Some(caller)),
        Some(_) => Err(Problem::new(
            Code::OperatorRequired,
            "Only a caller with the role \"operator\" may do this.",
        )),
    }
}

/// Returns how long an operator who was let in may be answered.
pub(super) fn tenure(
    head: &Parts,
    certificate: Option<Arc<ClientCertificate>>,
    callers: &Arc<CallerBook>,
    operator: Arc<Caller>,
) -> Tenure {
    let key = match presented(&head.headers) {
        Presented::CallerKey(text) => Some(text),
        Presented::Nothing | Presented::Unclear => None,
    };
    Tenure::new(callers.clone(), operator, key, certificate)
}

/// Refuses requests that a browser sends on behalf of another site: an operator's browser can reach
/// what the site cannot.
pub(super) fn refuse_other_sites(head: &Parts, names: &OwnNames) -> Result<(), Problem> {
    if is_from_another_site(head, names, |_| false) {
        return Err(Problem::cross_site_refused());
    }
    Ok(())
}

/// Refuses a body that is not JSON. A form on a web page cannot send JSON without a preflight. A
/// request without a media type passes: browsers that can omit it name the site they act for, and
/// were refused for that.
pub(super) fn is_json(head: &Parts) -> Result<(), Problem> {
    let Some(said) = head.headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let media = said.to_str().ok().and_then(|text| text.split(';').next());
    if media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        Ok(())
    } else {
        Err(Problem::new(
            Code::UnsupportedMediaType,
            "The purge must be sent as application/json.",
        ))
    }
}
