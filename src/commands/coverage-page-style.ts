/**
 * The style of the coverage page. Blue to orange to near black: told apart by those who see no red or no green, and by their
 * brightness in print. Cells that are not complete also say so in text.
 */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6776; --rule: #dfe3e8; --link: #0b62a8;
  --complete: #3d87bd; --d1: #fbe6a2; --d2: #f9c65b; --d3: #ee9036; --d4: #d2600f; --missing: #41212f; --none: #eceff2;
  --on-degraded: #2a1c00; --on-missing: #fff;
  --c1: #0072b2; --c2: #d55e00; --c3: #8a94a0; --grid: #e8ebef; --lost: rgba(213, 94, 0, .3); --off: rgba(65, 33, 47, .16);
}
@media (prefers-color-scheme: dark) {
  :root:not(.paper) {
    --page: #12161b; --card: #1a2027; --ink: #e4e9ee; --soft: #98a4b1; --rule: #2d3640; --link: #6cb8f0;
    --complete: #2b6f9f; --d1: #f3dc92; --d2: #f0b74a; --d3: #e08029; --d4: #c2540d; --missing: #050307; --none: #232a32;
    --on-missing: #b9a9b3;
    --c1: #5ab4ea; --c2: #f28b3b; --c3: #75818e; --grid: #29313a; --lost: rgba(242, 139, 59, .34); --off: rgba(200, 190, 205, .16);
  }
}
:root.paper { color-scheme: light; }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 24px; }
footer { color: var(--soft); padding-bottom: 32px; font-size: 12px; }
h1 { font-size: 22px; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 0; overflow-wrap: anywhere; }
h2 small, .soft { color: var(--soft); font-weight: normal; }
h3 { font-size: 13px; margin: 22px 0 8px; font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 18px 20px; margin: 16px 0; }
.path { overflow-wrap: anywhere; }
.problems { border-color: var(--d4); }
.problems ul { margin: 6px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
a, button.link { color: var(--link); text-decoration: none; }
a:hover, button.link:hover { text-decoration: underline; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--rule); border-radius: 5px; cursor: pointer; padding: 1px 8px; }
button.link { border: 0; padding: 0; text-align: left; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
table.list { width: 100%; }
.list th { text-align: left; color: var(--soft); font-weight: normal; font-size: 12px; border-bottom: 1px solid var(--rule); }
.list th, .list td { padding: 4px 14px 4px 0; white-space: nowrap; }
.list td { border-bottom: 1px solid var(--grid); }
.list tr:last-child td { border-bottom: 0; }
.list .n { text-align: right; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(100px, 1fr)); gap: 12px; margin: 14px 0 0; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-size: 17px; font-weight: 600; }
.facts dd small { display: block; font-size: 12px; font-weight: normal; color: var(--soft); }
.heat { width: 100%; table-layout: fixed; border-collapse: separate; border-spacing: 2px; font-size: 11px; }
.heat th { font-weight: normal; color: var(--soft); padding: 0; text-align: center; }
.heat col.date { width: 84px; } .heat col.day { width: 64px; }
.heat tbody th { text-align: left; white-space: nowrap; }
.heat td { height: 22px; padding: 0; text-align: center; border-radius: 3px; overflow: hidden; }
.heat td.share { color: var(--soft); text-align: right; }
.heat td[data-from] { cursor: pointer; }
.heat td[data-from]:hover { outline: 2px solid var(--ink); outline-offset: 0; }
.complete { background: var(--complete); fill: var(--complete); }
.d1, .d2, .d3, .d4 { color: var(--on-degraded); }
.d1 { background: var(--d1); fill: var(--d1); } .d2 { background: var(--d2); fill: var(--d2); }
.d3 { background: var(--d3); fill: var(--d3); } .d4 { background: var(--d4); fill: var(--d4); }
.missing { background: var(--missing); fill: var(--missing); color: var(--on-missing); }
.heat td.missing, .key.missing { box-shadow: inset 0 0 0 1px var(--soft); }
.none { background: var(--none); }
.heat td.stored, .key.stored { border-bottom: 3px double var(--ink); }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 8px 0 0; font-size: 12px; color: var(--soft); }
.key { display: inline-block; width: 14px; height: 12px; border-radius: 3px; margin-right: 5px; vertical-align: -1px; }
.key.lost { background: var(--lost); } .key.off { background: var(--off); }
.detail { display: block; min-height: 1.45em; margin-top: 6px; font-size: 12px; }
.bar { display: block; width: 120px; height: 10px; border-radius: 3px; box-shadow: 0 0 0 1px var(--rule); }
details { margin-top: 18px; }
summary { cursor: pointer; font-size: 13px; font-weight: 600; }
.causes { margin: 6px 0; color: var(--soft); font-size: 12px; }
.tools { display: flex; justify-content: space-between; align-items: baseline; gap: 12px; flex-wrap: wrap; }
.tools .soft { font-size: 12px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 18px 24px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; font-weight: 600; margin-bottom: 2px; }
figcaption small { font-weight: normal; color: var(--soft); }
.chart { min-height: 214px; }
.chart.empty { min-height: 0; color: var(--soft); font-size: 12px; padding: 8px 0; }
.uplot { font-family: inherit; }
.u-legend { font-size: 12px; text-align: left; margin: 0 0 0 8px; color: var(--soft); }
.u-legend th { font-weight: normal; }
.u-inline tr { margin-right: 10px; }
.u-legend .u-marker { width: 14px; height: 4px; margin-right: 5px; }
.u-legend .u-series:first-child .u-marker { display: none; }
.u-legend .u-value { color: var(--ink); }
.u-select { background: var(--off); }
@media screen and (max-width: 760px) {
  main, header, footer { padding-left: 10px; padding-right: 10px; }
  .card { padding: 14px 12px; }
  .heat { border-spacing: 1px; font-size: 0; }
  .heat th { font-size: 9px; }
  .heat thead th:not(.even) { font-size: 0; }
  .heat col.date { width: 38px; } .heat col.day { width: 0; }
  .heat .day, .heat .share { display: none; }
  .heat .year, .list .to { display: none; }
  .facts { grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); }
  .facts dd { font-size: 15px; }
}
@media print {
  :root { --page: #fff; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main, header, footer { max-width: none; padding: 0; }
  .card { border: 0; padding: 0; break-before: auto; }
  section.card + section.card { break-before: page; }
  figure, tr, .facts { break-inside: avoid; }
  .charts { grid-template-columns: 1fr 1fr; gap: 12px; }
  .scroll { overflow: visible; }
  .list { font-size: 11px; }
  .list th, .list td { padding: 2px 8px 2px 0; }
  .bar { width: 60px; }
  .heat { font-size: 9px; border-spacing: 1px; }
  .tools button, .detail, .hint { display: none; }
}
`
