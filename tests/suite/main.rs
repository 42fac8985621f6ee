mod conformance;
mod help;
mod readme;
mod rooms;
mod run;
mod sandbox;
mod servers;
mod support;
