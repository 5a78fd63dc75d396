//! A bare server: hyper and a moka cache of bodies. With the same parts, the gateway's hit path
//! cannot be faster than this.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use moka::sync::Cache;
use tokio::io::{AsyncRead, AsyncWrite};

/// Maximum bytes of bodies in the cache.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// Stands for every path that has no body of its own.
const ANY_PATH: &str = "*";

/// Bodies by path, and the answers made of them so far, by method, target and body.
pub struct Shelf {
    bodies: HashMap<String, Bytes>,
    cache: Option<Cache<Bytes, Bytes>>,
}

impl Shelf {
    /// Answers these paths. Without `cached`, every request is answered from the map alone.
    pub fn new(bodies: HashMap<String, Bytes>, cached: bool) -> Arc<Self> {
        let cache = cached.then(|| {
            Cache::builder()
                .max_capacity(CACHE_BYTES_MAX)
                .weigher(|_, body: &Bytes| u32::try_from(body.len()).unwrap_or(u32::MAX))
                .build()
        });
        Arc::new(Self { bodies, cache })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("", |t| t.as_str());
        let mut identity = Vec::with_capacity(256);
        identity.extend_from_slice(target.as_bytes());
        if let Ok(body) = body.collect().await {
            identity.push(0);
            identity.extend_from_slice(&body.to_bytes());
        }
        let identity = Bytes::from(identity);
        let known = self.cache.as_ref().and_then(|cache| cache.get(&identity));
        let found = match known {
            Some(body) => Some(body),
            None => {
                let body = self.bodies.get(head.uri.path());
                let body = body.or_else(|| self.bodies.get(ANY_PATH)).cloned();
                if let (Some(cache), Some(body)) = (&self.cache, &body) {
                    cache.insert(identity, body.clone());
                }
                body
            }
        };
        let Some(body) = found else {
            let mut missing = Response::new(Full::default());
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        };
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        // For the caches in front of this server.
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=3600"),
        );
        response
    }

    /// Serves one connection to its end.
    pub async fn serve<I>(self: Arc<Self>, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(move |request| {
            let shelf = self.clone();
            async move { Ok::<_, Infallible>(shelf.answer(request).await) }
        });
        // A caller that disconnects is not an error.
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(io), answer)
            .await;
    }
}
