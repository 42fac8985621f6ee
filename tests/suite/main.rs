mod conformance;
mod rooms;
mod run;
mod support;
