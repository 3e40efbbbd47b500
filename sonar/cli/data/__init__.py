"""`sonar data`: corpora, from a folder to checked, split and sharded audio."""

from __future__ import annotations

import typer

from sonar.cli.data.card import register_card
from sonar.cli.data.import_ import register_import
from sonar.cli.data.scan import register_scan
from sonar.cli.data.shards import register_shards
from sonar.cli.data.split import register_split
from sonar.cli.data.synth import register_synth

data_app = typer.Typer(no_args_is_help=True, help="Corpora: scan your own, write the embedded ones.")
register_card(data_app)
register_import(data_app)
register_scan(data_app)
register_shards(data_app)
register_split(data_app)
register_synth(data_app)
