//! Writes a small sentence encoder of random weights into a new directory, for trying things out
//! without a download: `cargo run -p thalweg-tensor --example write_random_encoder -- DIRECTORY`.

use thalweg_tensor::random_encoder::RandomEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: write_random_encoder DIRECTORY")?;
    std::fs::create_dir_all(&directory)?;
    RandomEncoder::default().write(&directory)?;
    println!("wrote a sentence encoder of random weights to {directory}");
    Ok(())
}
