/**
 * What runs in the coverage page, as text: it draws the charts with uPlot and answers the mouse. Charts of an instrument share
 * cursor and zoom; they are drawn when they come into view, so that many instruments cost nothing at first.
 */
export const SCRIPT = String.raw`
'use strict'
;(() => {
const HEIGHT_PX = 190
const PAPER_WIDTH_PX = 330
const MINUTE_S = 60
const DAY_S = 86400
const root = document.documentElement
const data = JSON.parse(document.getElementById('data').textContent)
const color = name => getComputedStyle(root).getPropertyValue(name).trim()
const digits = new Intl.NumberFormat('en', { maximumSignificantDigits: 6 })
const show = value => (value === null || value === undefined ? '–' : digits.format(value))
const utc = seconds => new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ')

/** Buckets may be shorter than the time between snapshots: between two neighbours is no hole, unless it is a gap. */
function bridged(values, times, gaps) {
  const filled = values.flatMap((value, at) => (value === null ? [] : [at]))
  const steps = filled.slice(1).map((at, n) => at - filled[n])
  const usual = [...steps].sort((a, b) => a - b)[steps.length >> 1]
  const isGap = (from, to) => gaps.some(gap => gap[0] < to && gap[1] > from)
  const out = [...values]
  steps.forEach((step, n) => {
    const [last, next] = [filled[n], filled[n + 1]]
    // uPlot draws a line over what is undefined, and none over null.
    if (step > 1 && step <= usual && !isGap(times[last], times[next])) out.fill(undefined, last + 1, next)
  })
  return out
}

function line(label, values, name, more) {
  const stroke = () => color(name)
  return { values, series: { label, stroke, width: 1.25, value: (_, v) => show(v), ...more } }
}

const stepped = uPlot.paths.stepped({ align: 1 })
const LINES = {
  spread: s => [
    line('largest', s.spreadMax, '--c3', { width: 1, paths: stepped }),
    line('median', s.spread, '--c1', { paths: stepped })
  ],
  mid: s => [line('mid', s.mid, '--c1')],
  // Asks hang below the line, so that both sides can be seen. The nearest size is filled.
  depth: s => s.depths.flatMap(({ bps, bids, asks }, at) => {
    const side = (name, values, ink) =>
      line(name + ' ' + bps + ' bps', values, ink, {
        width: 1,
        fillTo: 0,
        value: (_, v) => show(v && Math.abs(v)),
        ...(at === 0 ? { fill: () => color(ink) + '55' } : {})
      })
    return [side('bids', bids, '--c1'), side('asks', asks.map(v => v && -v), '--c2')]
  }),
  events: s => [line('events/s', s.eventsPerSecond, '--c1', { paths: stepped, width: 1 })],
  trades: s => [
    line('volume', s.volume, '--c3', {
      scale: 'volume', width: 0, paths: stepped, fill: () => color('--c3') + '66', points: { show: false }
    }),
    line('trades/s', s.tradesPerSecond, '--c1', { paths: stepped, width: 1 })
  ]
}

/** Ticks in UTC: hours and minutes, and the date where it changes. */
function timeTexts(u, splits, axis, space, step) {
  let last = ''
  return splits.map(seconds => {
    const text = utc(seconds)
    const date = text.slice(5, 10)
    const isNew = date !== last
    last = date
    if (step >= DAY_S) return date
    return text.slice(11, step < MINUTE_S ? 19 : 16) + (isNew ? '\n' + date : '')
  })
}

/** Room for one line of text, or two where a tick has its date below. */
const timeHeight = (u, texts) => ((texts || []).some(text => text.includes('\n')) ? 36 : 22)

function axis(more) {
  const grid = { stroke: () => color('--grid'), width: 1 }
  return { stroke: () => color('--soft'), font: '11px system-ui, sans-serif', grid, ticks: { ...grid, size: 4 }, gap: 4, ...more }
}

function valueAxis(more) {
  return axis({
    values: (u, splits) => splits.map(value => (value === null ? '' : digits.format(Math.abs(value)))),
    size: (u, texts) => 16 + 6.5 * Math.max(5, ...(texts || []).map(text => text.length)),
    ...more
  })
}

/** Ranges of a value axis: all of it, and as much as there is. Without values both are null. */
const fromZero = (u, min, max) => [Math.min(0, min) * 1.08, max > 0 ? max * 1.08 : 1]
function aroundValues(u, min, max) {
  if (min === null) return [0, 1]
  const pad = (max - min) * 0.08 || max * 0.001 || 1
  return [min - pad, max + pad]
}

/** Puts a colour behind the stretches of time without a book. */
function shade(u, gaps) {
  const { left, top, width, height } = u.bbox
  u.ctx.save()
  for (const [from, to, kind] of gaps) {
    const start = u.valToPos(from, 'x', true)
    // The shortest ones must be seen too.
    const end = Math.max(u.valToPos(to, 'x', true), start + 1.5 * devicePixelRatio)
    if (end <= left || start >= left + width) continue
    u.ctx.fillStyle = color(kind === 'off' ? '--off' : '--lost')
    const x = Math.max(left, start)
    u.ctx.fillRect(x, top, Math.min(left + width, end) - x, height)
  }
  u.ctx.restore()
}

/** The charts of one instrument. */
class Group {
  constructor(section, series, gaps, key) {
    this.section = section
    this.series = series
    this.gaps = gaps
    this.key = key
    this.charts = new Map()
    const { fromUs, bucketUs, mid } = series
    this.times = mid.map((_, at) => (fromUs + at * bucketUs) / 1e6)
    this.all = [fromUs / 1e6, (fromUs + mid.length * bucketUs) / 1e6]
    this.window = this.all
    this.reset = section.querySelector('.reset')
    this.reset.addEventListener('click', () => this.zoom(...this.all))
  }

  draw(box) {
    if (this.charts.has(box)) return
    const width = root.classList.contains('paper') ? PAPER_WIDTH_PX : box.clientWidth
    const { options, values } = box.dataset.chart === 'sizes' ? this.sizes() : this.lines(box.dataset.chart)
    const chart = new uPlot({ width, height: HEIGHT_PX, ...options }, values, box)
    this.charts.set(box, chart)
  }

  lines(kind) {
    const lines = LINES[kind](this.series)
    const hasVolume = kind === 'trades'
    const right = hasVolume ? [valueAxis({ scale: 'volume', side: 1, grid: { show: false } })] : []
    const options = {
      cursor: {
        drag: { x: true, y: false, dist: 5 },
        points: { size: 6 },
        y: false,
        sync: { key: this.key, scales: ['x', null], filters: { pub: type => type === 'mousemove' || type === 'mouseleave' } }
      },
      scales: {
        x: { time: true, min: this.window[0], max: this.window[1], range: (u, min, max) => [min, max] },
        y: { range: kind === 'mid' ? aroundValues : fromZero },
        volume: { range: fromZero }
      },
      axes: [axis({ values: timeTexts, space: 64, size: timeHeight }), valueAxis(), ...right],
      series: [{ label: 'UTC', value: (_, v) => (v === null ? '–' : utc(v)) }, ...lines.map(each => each.series)],
      hooks: {
        drawClear: [u => shade(u, this.gaps)],
        setScale: [(u, key) => { if (key === 'x') this.zoom(u.scales.x.min, u.scales.x.max) }],
        ready: [u => u.over.addEventListener('dblclick', () => this.zoom(...this.all))]
      }
    }
    return { options, values: [this.times, ...lines.map(each => bridged(each.values, this.times, this.gaps))] }
  }

  /** Shares of orders and trades by size. The steps are even on a logarithmic scale, so a line of bins is one. */
  sizes() {
    const bins = this.series.sizes
    const at = bins.map((_, n) => n)
    const shares = kind => {
      const all = bins.reduce((sum, bin) => sum + bin[kind], 0)
      return bins.map(bin => (all === 0 ? null : (bin[kind] / all) * 100))
    }
    const lines = [
      line('orders opened, %', shares('orders'), '--c1', { paths: stepped, points: { show: false }, fill: () => color('--c1') + '33' }),
      line('trades, %', shares('trades'), '--c2', { paths: stepped, points: { show: false } })
    ]
    const decade = size => (size < 0.001 ? size.toExponential(0) : digits.format(size))
    const isDecade = n => /^1(e|$)|^0\.0*1$|^10*$/.test(String(bins[n].fromSize))
    const options = {
      cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false },
      scales: { x: { time: false, range: [0, Math.max(1, bins.length)] }, y: { range: (u, min, max) => [0, (max || 1) * 1.1] } },
      axes: [
        axis({ splits: () => at.filter(isDecade), values: (u, splits) => splits.map(n => decade(bins[n].fromSize)), size: 22 }),
        valueAxis()
      ],
      series: [{ label: 'size from', value: (_, n) => (n === null ? '–' : show(bins[n].fromSize)) }, ...lines.map(each => each.series)]
    }
    return { options, values: [at, ...lines.map(each => each.values)] }
  }

  /** Shows a stretch of time in all charts. */
  zoom(min, max) {
    // Each chart tells what it shows now, also when it was told so.
    if (!(max > min) || (min === this.window[0] && max === this.window[1])) return
    this.window = [min, max]
    for (const [box, chart] of this.charts) if (box.dataset.chart !== 'sizes') chart.setScale('x', { min, max })
    this.reset.hidden = min <= this.all[0] && max >= this.all[1]
  }

  resize() {
    for (const [box, chart] of this.charts) {
      const width = root.classList.contains('paper') ? PAPER_WIDTH_PX : box.clientWidth
      if (width > 0 && width !== chart.width) chart.setSize({ width, height: HEIGHT_PX })
    }
  }

  redraw() {
    for (const chart of this.charts.values()) chart.redraw(false, true)
  }

  get boxes() {
    return [...this.section.querySelectorAll('.chart[data-chart]')]
  }
}

const groups = new Map()
for (const { id, series, gaps } of data.instruments) {
  const section = document.getElementById(id)
  if (series) groups.set(section, new Group(section, series, gaps, id))
}

const seen = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue
    seen.unobserve(target)
    groups.get(target.closest('section')).draw(target)
  }
}, { rootMargin: '300px' })
const sized = new ResizeObserver(() => requestAnimationFrame(() => { for (const group of groups.values()) group.resize() }))
for (const group of groups.values()) for (const box of group.boxes) seen.observe(box)
sized.observe(document.body)

for (const section of document.querySelectorAll('section[id]')) {
  const detail = section.querySelector('.detail')
  const usual = detail.textContent
  const cellOf = event => event.target.closest('.heat td[data-from]')
  section.addEventListener('mouseover', event => {
    const cell = cellOf(event)
    detail.textContent = cell ? cell.title : usual
  })
  section.addEventListener('click', event => {
    const place = event.target.closest('[data-from]')
    const group = groups.get(section)
    if (!place) return
    if (place.title) detail.textContent = place.title
    if (!group) return
    const from = Number(place.dataset.from)
    const to = Number(place.dataset.to)
    // A gap is shown with what was before and after it.
    const around = place.tagName === 'BUTTON' ? Math.max(to - from, 20 * group.series.bucketUs / 1e6) : 0
    group.zoom(Math.max(group.all[0], from - around), Math.min(group.all[1], to + around))
    section.querySelector('.charts').scrollIntoView({ block: 'nearest', behavior: 'smooth' })
  })
}

const everyGroup = action => { for (const group of groups.values()) action(group) }
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => everyGroup(group => group.redraw()))
addEventListener('beforeprint', () => {
  root.classList.add('paper')
  for (const each of document.querySelectorAll('details:not([open])')) {
    each.open = true
    each.dataset.closed = ''
  }
  everyGroup(group => {
    for (const box of group.boxes) group.draw(box)
    group.resize()
    group.redraw()
  })
})
addEventListener('afterprint', () => {
  root.classList.remove('paper')
  for (const each of document.querySelectorAll('details[data-closed]')) each.open = false
  everyGroup(group => {
    group.resize()
    group.redraw()
  })
})
})()
`
