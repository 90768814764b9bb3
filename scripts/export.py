"""Export a trained network: python scripts/export.py run=<run folder> format=[onnx,safetensors]"""

from fmnist.config.command_line import run

if __name__ == "__main__":
    run("export")
