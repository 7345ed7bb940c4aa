"""The pictures of the page: a slider and every method's crop for each."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from swise_bench.reports.page_details import notes
from swise_bench.reports.showcase import Showcase, describe_score
from swise_deploy.pictures.files import RgbImage


def pictures_section(showcases: Sequence[Showcase], names: Mapping[str, str]) -> str:
    """All pictures, each with a slider between two methods."""
    return "".join(_showcase(showcase, number, names) for number, showcase in enumerate(showcases))


def _showcase(showcase: Showcase, number: int, names: Mapping[str, str]) -> str:
    labels = [names.get(panel.label, panel.label) for panel in showcase.panels]
    options = "".join(
        f'<option value="{index}">{escape(label)}</option>' for index, label in enumerate(labels)
    )
    last = len(labels) - 1
    before = options.replace('value="1"', 'value="1" selected')
    after = options.replace(f'value="{last}"', f'value="{last}" selected')
    figures = "".join(
        f'<figure><img data-panel="{index}" alt="{escape(label)}" src="{_data_uri(panel.crop)}">'
        f"<figcaption>{escape(label)}<br>{describe_score(panel.score)}</figcaption></figure>"
        for index, (label, panel) in enumerate(zip(labels, showcase.panels, strict=True))
    )
    left, top, width, height = showcase.box
    caption = f"{showcase.picture}, x{showcase.scale}: {width}x{height} at ({left}, {top})"
    return (
        f'<div class="showcase"><h3>{escape(showcase.picture)}</h3>'
        f'<div class="choices"><label>left <select class="choose-before">{before}</select></label>'
        f'<label>right <select class="choose-after">{after}</select></label></div>'
        f'<div class="slider" style="--ratio: {width} / {height}">'
        f'<img class="before" alt="{escape(labels[1])}" '
        f'src="{_data_uri(showcase.panels[1].crop)}">'
        f'<img class="after" alt="{escape(labels[last])}" '
        f'src="{_data_uri(showcase.panels[last].crop)}">'
        '<div class="edge"></div><input type="range" min="0" max="100" value="50" '
        f'aria-label="Share of the left picture of {escape(showcase.picture)}"></div>'
        f'<details class="panels"{" open" if number == 0 else ""}><summary>every method</summary>'
        '<div class="figure">'
        f'<figure><img alt="whole picture, the crop outlined" src="{_data_uri(showcase.context)}">'
        f"<figcaption>{escape(showcase.picture)}</figcaption></figure>{figures}</div></details>"
        + notes([f"{caption}; scores are those of the whole picture"])
        + "</div>"
    )


def _data_uri(image: RgbImage) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((640, 640))
    data = io.BytesIO()
    picture.save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
