mod rooms;
mod run;
mod support;
