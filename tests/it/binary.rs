//! The running program over real sockets, against the simulated vendors as a program of their own.
//!
//! Nothing here sleeps: every wait is for something that can be seen, and has an end.

mod demo;
mod encrypted;
mod files;
mod floods;
mod lifecycle;
mod operate;
mod outputs;
mod outside;
mod overview;
mod paging;
mod restarts;
mod secrets;
mod settings;
mod sockets;
mod surface;
