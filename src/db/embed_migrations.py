#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the migrations as a C table: embed_migrations.py OUTPUT NNNN_name.sql..."""
import os
import sys

output, sources = sys.argv[1], sorted(sys.argv[2:], key=os.path.basename)
with open(output, "w", encoding="ascii") as c:
    c.write('#include "db/sqlite.h"\n\nconst struct migration migrations[] = {\n')
    for number, source in enumerate(sources, 1):
        version, _, name = os.path.basename(source)[:-4].partition("_")
        if int(version) != number:
            sys.exit(f"{source}: expected number {number:04}")
        with open(source, encoding="ascii") as sql:
            lines = [line.rstrip("\n").replace("\\", "\\\\").replace('"', '\\"') for line in sql]
        text = "\n".join(f'\t  "{line}\\n"' for line in lines)
        c.write(f'\t{{ {number}, "{name}",\n{text} }},\n')
    c.write("\t{ 0, NULL, NULL },\n};\n")
