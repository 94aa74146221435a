"""What the HTML report is made of beside the data: style, script and two small charts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from e0_ros.core.inspection_totals import JointRange

PAGE_STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1f2430;--soft:#667085;--line:#e3e6eb;--accent:#2563eb;--bad:#c92a2a;
--badbg:#fff1f0;--good:#2b8a3e;--warn:#b35c00;--warnbg:#fff8ec}
@media (prefers-color-scheme:dark){:root{--bg:#0b0e14;--card:#11151d;--ink:#e6e8ee;--soft:#98a1b3;--line:#262c3a;
--accent:#6ea8ff;--bad:#ff8787;--badbg:#2a1618;--good:#69db7c;--warn:#ffb86b;--warnbg:#241c10}}
*{box-sizing:border-box}
body{margin:0;padding:24px;background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 14px;overflow-wrap:anywhere}h2{font-size:15px;margin:22px 0 8px}small{font-weight:400}
.soft,small{color:var(--soft)}
.cards{display:flex;flex-wrap:wrap;gap:10px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:108px}
.card b{display:block;font-size:21px;font-variant-numeric:tabular-nums}.card span{color:var(--soft);font-size:12px}
.card.bad b{color:var(--bad)}.card.good b{color:var(--good)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:14px;margin-top:14px}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:2px 16px 14px;overflow-x:auto}
section h2{margin-top:12px}section svg{width:100%;height:auto;font:11px system-ui,sans-serif}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;font-size:12px;color:var(--soft)}
td,th{padding:5px 8px;border-bottom:1px solid var(--line);vertical-align:top}
td{overflow-wrap:break-word}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
#takes{min-width:1080px}#takes thead th{cursor:pointer;position:sticky;top:0;background:var(--card);white-space:nowrap}
#takes td:first-child{min-width:230px}#takes .row td:nth-child(2){max-width:420px}
.row,.found{cursor:pointer}tbody:hover .row td,tbody:hover .found td{
background:color-mix(in srgb,var(--accent) 7%,transparent)}
.row td{border-bottom:0}
.found td{padding-top:0}.found ul{margin:0;padding-left:18px;columns:2 320px;color:var(--warn)}
.fault .found ul{color:var(--bad)}
.suspect{background:var(--warnbg)}.fault{background:var(--badbg)}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;background:var(--good);margin-right:8px}
.suspect .dot{background:var(--warn)}.fault .dot{background:var(--bad)}
.tag{border:1px solid var(--line);border-radius:10px;padding:0 8px;font-size:12px}
.tag.success{color:var(--good);border-color:var(--good)}.tag.failure{color:var(--bad);border-color:var(--bad)}
.strip{display:flex;gap:3px}.found .strip img{height:56px;border-radius:3px}
.more{display:none}.open .more{display:table-row}.more>td{background:var(--card);padding:14px 16px}
.views{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0}figcaption{color:var(--soft);font-size:12px}
figure img{height:144px;border-radius:4px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:12px 0}dt{color:var(--soft)}dd{margin:0}
.plots{overflow-x:auto}.plots svg{max-width:100%;height:auto}.streams{width:auto;margin-top:10px;font-size:13px}
.tools{display:flex;gap:16px;align-items:center;margin:0 0 10px}
input[type=search]{padding:6px 10px;border:1px solid var(--line);border-radius:6px;background:var(--card);
color:var(--ink);width:320px;max-width:100%}
"""
SCRIPT = """
const table=document.getElementById('takes'),all=[...table.tBodies],find=document.getElementById('find'),
only=document.getElementById('only');
for(const b of all)for(const r of b.rows)if(r.className!=='more')
r.addEventListener('click',()=>b.classList.toggle('open'));
const value=(b,i)=>{const c=b.rows[0].cells[i];return c.dataset.v??c.textContent};
[...table.tHead.rows[0].cells].forEach((h,i)=>{let up=false;h.addEventListener('click',()=>{up=!up;
const key=(a,b)=>{const x=value(a,i),y=value(b,i);if(x===''||y==='')return (x==='')-(y==='');
const d=i<3?x.localeCompare(y,undefined,{numeric:true}):x-y;return up?d:-d};
table.append(...all.slice().sort(key))})});
const show=()=>{const w=find.value.toLowerCase();for(const b of all){
const text=[...b.rows].filter(r=>r.className!=='more').map(r=>r.textContent).join(' ').toLowerCase();
b.style.display=text.includes(w)&&!(only.checked&&b.className.startsWith('fine'))?'':'none'}};
find.addEventListener('input',show);only.addEventListener('change',show);
"""


def histogram(values: Sequence[float], unit: str) -> str:
    """Counts of values in up to 24 bins, as SVG."""
    counts, edges = np.histogram(values, bins=min(24, max(6, len(values) // 3)))
    width, height, bottom = 460, 150, 128
    step = (width - 20) / len(counts)
    bars = "".join(
        f'<rect x="{10 + i * step + 1:.1f}" y="{bottom - 108 * n / counts.max():.1f}" width="{step - 2:.1f}" '
        f'height="{108 * n / counts.max():.1f}" fill="var(--accent)">'
        f"<title>{edges[i]:.1f} to {edges[i + 1]:.1f} {unit}: {n}</title></rect>"
        for i, n in enumerate(counts.tolist())
    )
    median = float(np.median(values))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img"><path d="M10 {bottom}H{width - 10}" stroke="var(--line)"/>'
        f'{bars}<text x="10" y="145" fill="var(--soft)">{edges[0]:.1f} {unit}</text>'
        f'<text x="{width - 10}" y="145" text-anchor="end" fill="var(--soft)">{edges[-1]:.1f} {unit}</text>'
        f'<text x="{width / 2}" y="145" text-anchor="middle" fill="var(--soft)">'
        f"median {median:.1f} {unit}, tallest bar {counts.max()} takes</text></svg>"
    )


def ranges(joints: Sequence[JointRange]) -> str:
    """A line per joint: its limits as a track, the measured range on it, as SVG."""
    left, right, row = 128, 400, 24
    parts = []
    for i, joint in enumerate(joints[:32]):
        y = 16 + i * row
        low, high = (joint.low, joint.high) if joint.lower is None else (joint.lower, joint.upper or 0.0)
        span = max(high - low, 1e-6)
        a, b = (left + (right - left) * min(max((v - low) / span, 0.0), 1.0) for v in (joint.low, joint.high))
        colour = "var(--bad)" if joint.outside else "var(--accent)"
        limits = "no limits" if joint.lower is None else f"{joint.lower:.2f} to {joint.upper:.2f} rad"
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" fill="var(--ink)">{escape(joint.name[-20:])}</text>'
            f'<rect x="{left}" y="{y - 4}" width="{right - left}" height="8" rx="4" fill="var(--line)">'
            f"<title>limits: {limits}</title></rect>"
            f'<rect x="{a:.1f}" y="{y - 4}" width="{max(b - a, 2):.1f}" height="8" rx="4" fill="{colour}"/>'
            f'<text x="{right + 8}" y="{y + 4}" fill="var(--soft)">{joint.low:.2f} to {joint.high:.2f}</text>'
        )
    return f'<svg viewBox="0 0 500 {16 + row * min(len(joints), 32)}" role="img">{"".join(parts)}</svg>'
