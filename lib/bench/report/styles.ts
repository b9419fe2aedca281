/** The report's style sheet. Light and dark by the reader's preference; charts scroll where the screen is narrow. */
export const STYLES = `
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1c1e23; --muted: #5a606c; --line: #e4e1d9; --track: #eceae3;
  --bad: #b3261e; --bound: #1c1e23;
  --pool: #8b5e3c; --select: #a3387a; --lists: #868c97; --coarse: #0f766e; --fine: #d97a10; --dense: #3d4f6e;
  --vsa: #5b3fb0; --combine: #4f7d1f; --transpose: #868c97; --bits: #b0b4bc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #101216; --card: #181b21; --ink: #eceae5; --muted: #a3a9b5; --line: #2a2e37; --track: #262a32;
    --bad: #ff8a80; --bound: #eceae5;
    --pool: #c59a72; --select: #e084bd; --lists: #7c838f; --coarse: #45bfae; --fine: #f2a03d; --dense: #8ba3c9;
    --vsa: #a993f0; --combine: #9bc767; --transpose: #7c838f; --bits: #5b616c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1240px; margin: 0 auto; padding: 44px 24px 72px; }
h1 { font-size: clamp(28px, 4.5vw, 42px); line-height: 1.1; letter-spacing: -0.025em; margin: 0 0 10px; }
h2 { font-size: 23px; letter-spacing: -0.015em; margin: 0 0 6px; }
.lede { font-size: 18px; color: var(--muted); max-width: 50em; margin: 0 0 8px; }
.lead { color: var(--muted); max-width: 62em; margin: 0 0 14px; }
section { margin-top: 48px; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px; overflow-x: auto;
}
.card + .card { margin-top: 16px; }
.chart { display: block; width: 100%; min-width: 760px; height: auto; font-size: 13px; }
.chart text { fill: var(--ink); } .chart .muted { fill: var(--muted); }
.chart .track { fill: var(--track); } .chart .axis { stroke: var(--line); stroke-width: 1; }
.chart .bound { stroke: var(--bound); stroke-width: 2; }
.chart .roof { stroke: var(--muted); stroke-width: 1.5; fill: none; }
.chart .failed { fill: var(--bad); } .chart .point { fill-opacity: .82; stroke: var(--card); stroke-width: 1; }
.legend {
  display: flex; flex-wrap: wrap; gap: 6px 18px; padding: 0; margin: 0 0 12px; list-style: none; font-size: 14px;
}
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; white-space: nowrap; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); font-weight: 400; }
th { color: var(--muted); } .right { text-align: right; }
tr:last-child > * { border-bottom: 0; }
.bad { color: var(--bad); }
@media (max-width: 700px) { main { padding: 28px 14px 48px; } .card { padding: 12px; } }
`;
