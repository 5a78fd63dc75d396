"""The ratios as a plot: one bar a line, from the least to the greatest, a dot at the median, a mark at the target."""

from xml.sax.saxutils import escape

# The name of the format, not a place to go to.
SVG = "http://" + "www.w3.org/2000/svg"
LINE, LEFT, WIDTH = 26, 400, 420


def svg(rows):
    top = max([r["max"] for r in rows] + [r["target"] or 0 for r in rows] + [1.0]) * 1.05
    x = lambda value: LEFT + WIDTH * value / top
    height = LINE * (len(rows) + 2)
    out = [
        f'<svg xmlns="{SVG}" width="{LEFT + WIDTH + 90}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18" font-weight="bold">Ratios: median, least and greatest; | is the target</text>',
        f'<line x1="{x(1):.1f}" y1="26" x2="{x(1):.1f}" y2="{height - 6}" stroke="#999" stroke-dasharray="3 3"/>',
    ]
    for at, r in enumerate(rows):
        y = LINE * (at + 1.6)
        color = {None: "#557", True: "#2a7", False: "#c43"}[r["good"]]
        out.append(f'<text x="10" y="{y + 4:.1f}">{escape(r["what"])} : {escape(r["peer"])}</text>')
        out.append(f'<rect x="{x(r["min"]):.1f}" y="{y - 4:.1f}" width="{max(x(r["max"]) - x(r["min"]), 1):.1f}" '
                   f'height="8" fill="{color}" opacity="0.45"/>')
        out.append(f'<circle cx="{x(r["median"]):.1f}" cy="{y:.1f}" r="5" fill="{color}"/>')
        if r["target"] is not None:
            out.append(f'<line x1="{x(r["target"]):.1f}" y1="{y - 9:.1f}" x2="{x(r["target"]):.1f}" y2="{y + 9:.1f}" '
                       'stroke="black" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + WIDTH + 16}" y="{y + 4:.1f}">{r["median"]:.2f}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
