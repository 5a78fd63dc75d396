//! Layers a vendor call passes on its way out.
