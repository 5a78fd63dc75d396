//! What the fuzz targets run. The promises are the same files that `tests/it/corpus.rs` holds the
//! committed corpus to.

#[path = "../../it/kit.rs"]
pub mod kit;
#[path = "../../it/peer.rs"]
pub mod peer;
#[path = "../../it/whole.rs"]
pub mod whole;

pub mod promises;
