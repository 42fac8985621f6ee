mod conformance;
mod rooms;
mod run;
mod sandbox;
mod support;
