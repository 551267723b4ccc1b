//! 
#[derive(Debug)] pub struct LocalEngine;
