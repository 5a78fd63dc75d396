//! The layers that a vendor call passes, one verb each. `stack.rs` puts them in order.

pub mod count;
pub mod observe;
pub mod pace;
pub mod refuse;
pub mod retry;
pub mod sign;
pub mod time_attempt;
pub mod trip;

/// Defines a layer that wraps one step around an inner service.
macro_rules! layer {
    ($layer:ident => $step:ident { $($field:ident : $type:ty),* $(,)? }) => {
        /// Wraps the step around an inner service.
        #[derive(Clone)]
        pub struct $layer { $($field: $type),* }

        impl<S> tower::Layer<S> for $layer {
            type Service = $step<S>;

            fn layer(&self, inner: S) -> $step<S> {
                $step { inner, $($field: self.$field.clone()),* }
            }
        }

        /// The step with its inner service.
        pub struct $step<S> { inner: S, $($field: $type),* }
    };
}
pub(crate) use layer;
