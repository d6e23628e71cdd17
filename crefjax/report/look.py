"""Style sheet and script of the report. Both are inlined, so that the page is self-contained."""

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5a6675; --line: #d8dee6; --panel: #f6f8fa; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial,
  sans-serif; }
main, header.top > div, footer { max-width: 1160px; margin: 0 auto; padding: 0 24px; }
header.top { background: #14202e; color: #fff; padding: 22px 0 20px; }
header.top p { margin: 4px 0 0; max-width: none; color: #c6d2df; overflow-wrap: anywhere; }
header.top p.what { text-transform: uppercase; letter-spacing: .08em; font-size: 13px; margin: 0; }
h1 { font-size: 27px; line-height: 1.25; margin: 2px 0 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 10px; }
h3 { font-size: 16px; margin: 0 0 6px; }
p { margin: 0 0 10px; max-width: 80ch; }
a { color: var(--blue); }
:focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
.box { border: 1px solid var(--line); border-left-width: 6px; border-radius: 6px; padding: 14px 18px;
  margin-top: 22px; }
.box h2 { margin: 0 0 6px; }
.box ul { margin: 0; padding-left: 20px; }
.box li { margin: 4px 0; max-width: 90ch; }
.box.warn { border-color: #d55e00; background: #fff5ee; }
.box.fine { border-color: #009e73; background: #f0faf6; }
.box.open { border-color: #e69f00; background: #fffaf0; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 22px; }
.two .box.not { border-color: #666; background: var(--panel); }
.two .box.yes { border-color: var(--blue); background: #f0f7fc; }
dl.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); gap: 12px; margin: 0; }
dl.numbers > div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
dl.numbers dt { color: var(--soft); font-size: 14px; }
dl.numbers dd { margin: 0; font-size: 21px; font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
dl.numbers dd small { display: block; font-size: 13.5px; font-weight: 400; color: var(--soft); line-height: 1.35; }
.planes { display: flex; gap: 12px; margin: 12px 0 4px; }
.planes figure { margin: 0; min-width: 0; }
.stack { position: relative; background: #101418; border-radius: 3px; overflow: hidden; }
.stack img, .stack svg { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.stack .after { clip-path: inset(0 50% 0 0); }
.stack .divider { position: absolute; top: 0; bottom: 0; left: 50%; width: 0; border-left: 1.5px solid #ffd166; }
.stack .edge { fill: none; stroke: #ffb000; stroke-width: 1.3; vector-effect: non-scaling-stroke; }
.stack.colour .edge { stroke: #fff; }
.stack .bar { fill: #fff; stroke: #000; stroke-width: .5; vector-effect: non-scaling-stroke; }
.stack .tag { position: absolute; top: 0; font-size: 13px; line-height: 1; padding: 5px 7px; color: #fff;
  background: #101418b0; }
.stack .tag.ends { left: 0; }
.stack .tag.begins { right: 0; }
.planes + h3, .scale + h3 { margin-top: 22px; }
.stack text { fill: #fff; paint-order: stroke; stroke: #000; }
body.noedge .edge { display: none; }
figcaption, .small { font-size: 14px; color: var(--soft); }
.controls { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 22px; background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
.controls .slide { display: flex; align-items: center; gap: 10px; flex: 1 1 420px; }
.controls input[type=range] { flex: 1; min-width: 120px; accent-color: var(--blue); height: 26px; }
.controls fieldset { border: 0; padding: 0; margin: 0; display: flex; gap: 12px; }
.controls legend { float: left; padding: 0; margin-right: 10px; color: var(--soft); }
.scale { display: flex; align-items: center; gap: 8px; font-size: 14px; margin: 0 0 22px; }
.scale img { width: 220px; height: 14px; border: 1px solid var(--line); }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 26px 28px; }
.figures figure { margin: 0; break-inside: avoid; min-width: 0; }
.figures img { width: 100%; height: auto; display: block; border: 1px solid var(--line); border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
caption { text-align: left; color: var(--soft); padding: 0 0 6px; }
th, td { text-align: left; vertical-align: top; padding: 5px 10px; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; white-space: pre-line; }
thead th { border-bottom: 2px solid #9aa7b5; }
tbody th { font-weight: 500; white-space: normal; }
tr.differs { background: #fdebd9; }
tr.differs td:last-child { font-weight: 600; color: #8f3f00; }
code, .hash { font: 12.5px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; overflow-x: auto;
  white-space: pre-wrap; font-size: 13px; }
footer { padding-top: 30px; padding-bottom: 40px; color: var(--soft); font-size: 14px; }
@media (max-width: 800px) {
  .two, .figures { grid-template-columns: 1fr; }
  .planes { flex-direction: column; max-width: 460px !important; }
  .planes figure { flex: none !important; }
}
@media print {
  .controls { display: none; }
  header.top { background: #fff; color: #000; border-bottom: 2px solid #000; }
  header.top p { color: #333; }
  .box, .planes, .figures figure, tr { break-inside: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""

SCRIPT = """
'use strict';
const slider = document.getElementById('slider');
const said = document.getElementById('said');
function show() {
  const value = Number(slider.value);
  const fade = document.getElementById('fade').checked;
  for (const image of document.querySelectorAll('.after')) {
    image.style.clipPath = fade ? 'none' : `inset(0 ${100 - value}% 0 0)`;
    image.style.opacity = fade ? value / 100 : 1;
  }
  for (const line of document.querySelectorAll('.divider')) {
    line.style.left = `${value}%`;
    line.style.display = fade || value === 0 || value === 100 ? 'none' : 'block';
  }
  for (const tag of document.querySelectorAll('.tag')) {
    tag.hidden = fade || value === (tag.classList.contains('ends') ? 0 : 100);
  }
  const text = value === 0 ? 'full map' : value === 100 ? 'denoised map' : `${value} % denoised`;
  slider.setAttribute('aria-valuetext', text);
  said.textContent = text;
}
slider.addEventListener('input', show);
for (const choice of document.querySelectorAll('input[name=how]')) choice.addEventListener('change', show);
const edge = document.getElementById('edge');
edge.addEventListener('change', () => document.body.classList.toggle('noedge', !edge.checked));
show();
"""
