//! Starts processes that die with this one.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process: Linux sends the signal for a parent's death (which `setpriv --pdeathsig` asks
/// for) when the *thread* that started the child ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                // Who asked waits for the answer.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = channel();
    orders.send((command, answer)).expect("the thread lives as long as the process");
    answered.recv().expect("the thread answers every order")
}
