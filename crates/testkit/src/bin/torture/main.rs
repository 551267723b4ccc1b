//! A node to be killed: see `weir_testkit::torture`.

use weir_testkit::torture::node::{Order, run};

#[tokio::main(worker_threads = 2)]
async fn main() {
    // A task that panics ends the process, and with it the test.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        std::process::abort();
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(Order::from_arguments(&arguments)).await;
}
