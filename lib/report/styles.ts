/** The report's style sheet. Light and dark by the reader's preference; one column on a phone. */
export const STYLES = `
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1c1e23; --muted: #5a606c; --line: #e4e1d9; --track: #eceae3;
  --vsa: #d97a10; --vsa-ink: #9a4f05; --best: #0f766e; --random: #868c97; --dense: #3d4f6e;
  --glow: #ffae3d; --query: #5fe3ff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #101216; --card: #181b21; --ink: #eceae5; --muted: #a3a9b5; --line: #2a2e37; --track: #262a32;
    --vsa: #f2a03d; --vsa-ink: #f6b767; --best: #45bfae; --random: #7c838f; --dense: #8ba3c9;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1180px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: clamp(30px, 5vw, 46px); line-height: 1.1; letter-spacing: -0.025em; margin: 0 0 10px; font-weight: 700; }
h2 { font-size: 24px; letter-spacing: -0.015em; line-height: 1.25; margin: 0 0 6px; }
h3 { font-size: 16px; margin: 0 0 4px; }
p { margin: 0 0 12px; }
.lede { font-size: clamp(17px, 2.2vw, 20px); color: var(--muted); max-width: 46em; margin-bottom: 28px; }
.lead { color: var(--muted); max-width: 62em; margin-bottom: 18px; }
.note { color: var(--muted); font-size: 14px; }
section { margin-top: 56px; }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; padding: 0; margin: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px; }
.facts dt { color: var(--muted); font-size: 14px; }
.facts dd { margin: 0; }
.facts .number { font-size: clamp(28px, 3.6vw, 40px); font-weight: 700; letter-spacing: -0.03em; line-height: 1.2; }
.facts .accent { color: var(--vsa-ink); }
.facts .beside { color: var(--muted); font-size: 14px; }

.frame { position: relative; overflow: hidden; border-radius: 8px; background: #000; }
.frame img, .frame svg { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.tiles rect {
  fill: #05070b; fill-opacity: .68; stroke: #05070b; stroke-opacity: .5; stroke-width: 1.5;
  vector-effect: non-scaling-stroke;
}
.tiles rect.on {
  fill: var(--glow); fill-opacity: calc(.42 * var(--m)); stroke: var(--glow); stroke-opacity: calc(.55 + .45 * var(--m));
}
.mode-dense .tiles rect { fill: #05070b; fill-opacity: calc(.86 * (1 - var(--m))); }
.tiles rect.query { stroke: var(--query); stroke-opacity: 1; stroke-width: 3.5; }
.scripted .tiles rect { cursor: pointer; }
.mode-selected .dense-note { display: none; }
.dense-note { margin: 8px 0 0; }
.query-word { color: inherit; border-bottom: 3px solid #25b7d8; }
.selected-word { color: inherit; border-bottom: 3px solid var(--vsa); }

html:not(.scripted) .script { display: none; }
.scripted .static { display: none; }
html:not(.scripted) .strip { grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); }
.stage-grid { display: grid; grid-template-columns: minmax(0, 1.75fr) minmax(280px, 1fr); gap: 18px 26px; margin-bottom: 22px; }
#stage { border-radius: 12px; }
#stage:focus-visible, button:focus-visible, input:focus-visible + span, input[type=range]:focus-visible {
  outline: 3px solid #25b7d8; outline-offset: 2px;
}
.panel { display: flex; flex-direction: column; gap: 16px; }
.panel p { margin-bottom: 8px; }
fieldset { border: 0; padding: 0; margin: 0; min-width: 0; }
legend, .legend { padding: 0; color: var(--muted); font-size: 13px; font-weight: 600; margin: 0 0 6px; display: block; }
.pills { display: flex; flex-wrap: wrap; gap: 8px; }
.pills input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.pills label { position: relative; }
.pills span, button {
  display: inline-block; font: inherit; font-size: 14px; line-height: 1.2; padding: 8px 13px; border-radius: 999px;
  border: 1px solid var(--line); background: var(--card); color: var(--ink); cursor: pointer;
}
.pills label:hover span, button:hover { border-color: var(--muted); }
.pills input:checked + span { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.time { display: flex; align-items: center; gap: 14px; margin-top: 16px; }
.time input { flex: 1; min-width: 60px; accent-color: var(--vsa); }
.time output { font-size: 14px; color: var(--muted); min-width: 15.5em; }
#play { min-width: 74px; text-align: center; }
.meter { display: grid; grid-template-columns: 7em 1fr 4.2em; gap: 10px; align-items: center; font-size: 14px; padding: 2px 0; }
.meter i { background: var(--track); border-radius: 4px; height: 12px; overflow: hidden; display: block; }
.meter b { display: block; height: 100%; background: var(--vsa); border-radius: 4px; min-width: 1px; }
.meter em { font-style: normal; text-align: right; }
.meter.best b { background: var(--best); } .meter.random b { background: var(--random); }
.meter.dense b { background: var(--dense); }
.strip { list-style: none; margin: 0; padding: 0; display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(172px, 1fr)); }
.strip figure { margin: 0; }
.strip figcaption { font-size: 13px; line-height: 1.35; padding-top: 6px; color: var(--muted); }
.strip figcaption b { display: block; font-weight: 600; color: var(--ink); }
.strip .tiles rect { stroke-width: 1; }
.strip .tiles rect.query { stroke-width: 2.5; }
.scripted .strip .current .frame { outline: 2px solid var(--ink); outline-offset: 2px; }

.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 22px; margin-top: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px 22px; min-width: 0; }
.card > p { color: var(--muted); font-size: 14px; max-width: 44em; }
.head-bars { margin-top: 14px; }
.head-bars h4 { margin: 14px 0 2px; font-size: 14px; font-weight: 600; }
.head-bars h4 span { font-weight: 400; color: var(--muted); }
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--muted); font-size: 12px; font-family: inherit; }
.chart .axis { stroke: var(--line); } .chart .mark { stroke: var(--muted); stroke-dasharray: 3 4; }
.chart .label { font-weight: 600; }
.chart path { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.chart .vsa { stroke: var(--vsa); } .chart .best { stroke: var(--best); } .chart .random { stroke: var(--random); }
.chart text.vsa, .chart text.best, .chart text.random { stroke: none; }
.chart text.vsa { fill: var(--vsa-ink); } .chart text.best { fill: var(--best); }
.offsets { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(200px, 44%), 1fr)); gap: 20px 24px; margin-top: 14px; }
.offsets figure { margin: 0; } .offsets figcaption { font-size: 14px; margin-bottom: 6px; }
.offsets svg { width: 100%; height: auto; display: block; background: var(--track); border-radius: 6px; }
.offsets rect { fill: var(--vsa); } .offsets .origin { fill: none; stroke: var(--ink); stroke-width: .12; }
.offsets .axis-note { display: flex; justify-content: space-between; font-size: 12px; color: var(--muted); margin: 4px 0 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: right; padding: 7px 0 7px 14px; border-bottom: 1px solid var(--line); font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-size: 13px; }
tr:last-child > * { border-bottom: 0; }
td.wide { text-align: left; overflow-wrap: anywhere; }
.steps { counter-reset: step; list-style: none; padding: 0; margin: 16px 0 0; display: grid; gap: 14px;
  grid-template-columns: repeat(4, 1fr); }
.steps li { counter-increment: step; border-top: 3px solid var(--vsa); padding-top: 12px; }
.steps li::before { content: counter(step); color: var(--vsa-ink); font-weight: 700; }
.steps p { color: var(--muted); font-size: 15px; }
.prose { max-width: 46em; }
@media (max-width: 860px) {
  main { padding: 28px 16px 48px; }
  section { margin-top: 42px; }
  .facts, .steps { grid-template-columns: 1fr 1fr; }
  .stage-grid, .columns { grid-template-columns: minmax(0, 1fr); }
  .time { flex-wrap: wrap; }
  .time output { min-width: 100%; order: 3; }
  .strip { grid-template-columns: 1fr 1fr; }
  .card { padding: 16px; }
}
@media (max-width: 430px) { .steps { grid-template-columns: 1fr; } .facts div { padding: 14px; } }
@media print { .script { display: none !important; } }
`;
