//! Which requests are traced, and where their spans go, as the settings have it by now.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{BuildError, Way};
use crate::clock::{Clock, Duration};
use crate::config::{Secrets, Settings};
use crate::metrics::Metrics;
use crate::traces::{TraceOptions, Traces, collector_connector};

/// The exporter in use. A reload that changes nothing of it keeps it.
pub(super) struct Traced {
    way: Way,
    clock: Clock,
    metrics: Arc<Metrics>,
    current: ArcSwap<Running>,
}

/// An exporter and what it was started with.
pub(super) struct Running {
    options: Option<TraceOptions>,
    traces: Traces,
}

impl Running {
    /// For the stacks.
    pub(super) fn traces(&self) -> &Traces {
        &self.traces
    }
}

impl Traced {
    pub(super) fn new(
        way: &Way,
        settings: &Settings,
        secrets: &Secrets,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let running = started(way, options(settings, secrets), clock, metrics)?;
        Ok(Self {
            way: way.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            current: ArcSwap::from_pointee(running),
        })
    }

    pub(super) fn current(&self) -> Arc<Running> {
        self.current.load_full()
    }

    /// What new settings ask for. Dropped, it has changed nothing.
    pub(super) fn prepare(
        &self,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Arc<Running>, BuildError> {
        let (now, wanted) = (self.current(), options(settings, secrets));
        match now.options == wanted {
            true => Ok(now),
            false => started(&self.way, wanted, &self.clock, &self.metrics).map(Arc::new),
        }
    }

    /// The exporter before ends once the requests that it traces have ended.
    pub(super) fn commit(&self, running: Arc<Running>) {
        self.current.store(running);
    }

    /// Exports what waits, in `limit` at most.
    pub(super) async fn close(&self, limit: Duration) {
        self.current().traces.close(limit).await;
    }
}

fn options(settings: &Settings, secrets: &Secrets) -> Option<TraceOptions> {
    let traces = settings.traces.as_ref()?;
    Some(TraceOptions {
        collector: traces.collector.clone(),
        sample_ratio: traces.sample_ratio,
        headers: secrets.trace_headers.clone(),
    })
}

fn started(
    way: &Way,
    options: Option<TraceOptions>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Running, BuildError> {
    let traces = match &options {
        None => Traces::off(),
        Some(options) => {
            let (clock, metrics) = (clock.clone(), metrics.traces.resolve());
            match way {
                Way::Network => {
                    let connector = collector_connector(&options.collector)
                        .map_err(|why| BuildError(format!("TLS cannot be set up: {why}")))?;
                    Traces::start(options, connector, clock, metrics)
                }
                Way::InMemory(connector) => {
                    Traces::start(options, connector.clone(), clock, metrics)
                }
            }
        }
    };
    Ok(Running { options, traces })
}
