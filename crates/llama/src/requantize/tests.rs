use super::*;
use crate::models;

#[test]
fn a_full_disk_is_an_error() {
    let source = models::smollm2_file();
    backend::start().unwrap();
    let plan = Plan::of(&Gguf::read(&source).unwrap()).unwrap();
    let full = Path::new("/dev/full");
    let error = plan.quantize(&source, full, 1).unwrap_err().to_string();
    assert!(error.contains("can't requantize"), "{error}");

    let folder = source.parent().unwrap();
    let error = copies::check_room(folder, u64::MAX).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("takes 17592186044415 MiB, and "), "{error}");
    assert!(copies::check_room(folder, 1).is_ok());
}
