//! Layers a vendor call passes on its way out. Their order stands in `stack.rs`.

pub mod count;
pub mod observe;
pub mod pace;
pub mod refuse;
pub mod retry;
pub mod sign;
pub mod time_attempt;
pub mod trip;

/// A layer that puts one step around another.
macro_rules! layer {
    ($layer:ident => $step:ident { $($field:ident : $type:ty),* $(,)? }) => {
        /// Puts the step around an inner one.
        #[derive(Clone)]
        pub struct $layer { $($field: $type),* }

        impl<S> tower::Layer<S> for $layer {
            type Service = $step<S>;

            fn layer(&self, inner: S) -> $step<S> {
                $step { inner, $($field: self.$field.clone()),* }
            }
        }

        /// The step.
        pub struct $step<S> { inner: S, $($field: $type),* }
    };
}
pub(crate) use layer;
