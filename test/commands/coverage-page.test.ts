import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { coverVault } from '../../src/commands/coverage.ts'
import { coveragePage } from '../../src/commands/coverage-page.ts'
import { readSeries } from '../../src/commands/coverage-series.ts'
import type { CoverageReport } from '../../src/quality/coverage.ts'
import type { InstrumentSeries } from '../../src/quality/series.ts'
import { nowMs, Stage } from '../faults/harness.ts'
import { CHROMIUM, NEEDS_CHROMIUM, openBrowser } from '../helpers/browser.ts'

const HOUR_MS = 3_600_000
const HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">\'"&'
/** Charts of an instrument. */
const CHARTS = 6
const WAIT_MS = 10_000

let stage: Stage
let report: CoverageReport
let series: InstrumentSeries[]
let browser: Browser | undefined

/** A capture that loses its connection, is killed, and goes on three hours later. */
beforeAll(async () => {
  const instruments = { exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] } as const
  stage = await Stage.open({ seed: 5, kind: 'page', exchanges: [instruments] })
  const first = stage.start()
  await first.heard(150)
  stage.simulators[0]!.inject({ kind: 'close', code: 1006 })
  await first.heard(500)
  await first.kill()
  const second = stage.start({ clockShiftMs: 3 * HOUR_MS })
  await second.heard(200)
  await second.stop()
  const nowUs = (nowMs() + 3 * HOUR_MS) * 1000
  report = await coverVault(stage.vault, {}, { nowUs })
  series = await readSeries(report)
  if (CHROMIUM) browser = await openBrowser()
}, 60_000)

afterAll(async () => {
  await browser?.close()
  await stage?.close()
})

/** The report with other names, causes and troubles: whatever a file may hold. */
function hostile(): string {
  const instruments = report.instruments.map(each => ({
    ...each,
    exchange: HOSTILE,
    instId: HOSTILE,
    gaps: each.gaps.map(gap => ({ ...gap, cause: HOSTILE }))
  }))
  return coveragePage(
    { ...report, vault: HOSTILE, at: HOSTILE, instruments, problems: [HOSTILE] },
    series.map(each => ({ ...each, exchange: HOSTILE }))
  )
}

/** A page in a browser, and all that it asked for and complained of. */
interface Shown {
  readonly page: Page
  readonly url: string
  readonly requests: string[]
  readonly complaints: string[]
}

async function show(html: string, options: BrowserContextOptions = {}): Promise<Shown> {
  const path = join(stage.folder, 'page.html')
  writeFileSync(path, html)
  const context = await browser!.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  context.setDefaultTimeout(WAIT_MS)
  const page = await context.newPage()
  const shown: Shown = { page, url: pathToFileURL(path).href, requests: [], complaints: [] }
  page.on('request', request => shown.requests.push(request.url()))
  page.on('pageerror', error => shown.complaints.push(error.message))
  page.on('console', message => {
    if (['error', 'warning'].includes(message.type())) shown.complaints.push(message.text())
  })
  await page.goto(shown.url)
  return shown
}

/** Scrolls through the page until every chart is drawn. */
async function drawAll(page: Page): Promise<void> {
  for (const chart of await page.locator('.chart[data-chart]').all()) {
    await chart.scrollIntoViewIfNeeded()
    await chart.locator('canvas').waitFor()
  }
}

/** How much of each chart has the colour of its first line, and that of time without a process. */
async function pixelsOf(page: Page): Promise<{ inked: number; shaded: number }[]> {
  return await page.evaluate<{ inked: number; shaded: number }[]>(`
    [...document.querySelectorAll('.chart canvas')].map(canvas => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      const found = { inked: 0, shaded: 0 }
      for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue, alpha] = data.subarray(at, at + 4)
        if (red < 30 && green > 90 && green < 140 && blue > 150 && alpha > 200) found.inked += 4 / data.length
        if (Math.abs(red - 65) < 9 && Math.abs(alpha - 41) < 2) found.shaded += 4 / data.length
      }
      return found
    })`)
}

/** The time that the cursor of each time chart of the first instrument shows. */
async function cursorTimes(page: Page): Promise<string[]> {
  const values = page.locator('#instrument-1 .u-legend').filter({ hasText: 'UTC' })
  return await values.locator('tr:first-child .u-value').allTextContents()
}

/** The first and the last time that a chart shows, by moving over it. */
async function edgesOf(page: Page, chart: string): Promise<string[]> {
  const over = page.locator(`#instrument-1 [data-chart=${chart}] .u-over`)
  await over.scrollIntoViewIfNeeded()
  const { width } = (await over.boundingBox())!
  const times: string[] = []
  for (const x of [1, width - 2]) {
    await over.hover({ position: { x, y: 20 } })
    times.push((await cursorTimes(page))[0]!)
  }
  return times
}

describe('the coverage page', () => {
  test('is one file with a policy that allows its own script and style alone', () => {
    const html = coveragePage(report, series)
    const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(html)![1]!
    expect(policy.replace(/sha256-[A-Za-z0-9+/]{43}=/g, 'HASH')).toBe(
      "default-src 'none'; style-src 'HASH'; script-src 'HASH'; base-uri 'none'; form-action 'none'"
    )
    expect(html.match(/<script/g)).toHaveLength(2)
    expect(html).not.toMatch(/\s(?:src|style|on\w+)=/)
    const data = JSON.stringify(series).length
    expect(html.length - data).toBeLessThan(150_000)
  })

  test('shows hostile text as text', () => {
    const html = hostile()
    expect(html.match(/<script/g)).toHaveLength(2)
    expect(html.match(/<\/script/g)).toHaveLength(2)
    expect(html).not.toContain('<img')
    const text = /id="data">(.*?)<\/script>/.exec(html)![1]!
    const { instruments } = JSON.parse(text) as { instruments: { series: InstrumentSeries }[] }
    expect(instruments[0]!.series.exchange).toBe(HOSTILE)
  })

  test('has no charts for instruments whose files are gone', () => {
    const html = coveragePage(report, series.slice(1))
    expect(html.split('data-chart=').length - 1).toBe(CHARTS)
    expect(html).toContain('there is nothing to draw')
  })

  test('says so when there is nothing at all', () => {
    expect(coveragePage({ ...report, instruments: [] }, [])).toContain('nothing was captured in this range')
  })
})

describe.skipIf(!CHROMIUM)(`the coverage page in a browser${NEEDS_CHROMIUM}`, () => {
  test('draws every chart, asks for nothing and complains of nothing', async () => {
    const { page, url, requests, complaints } = await show(coveragePage(report, series))
    await drawAll(page)
    const pixels = await pixelsOf(page)
    expect(pixels).toHaveLength(CHARTS * report.instruments.length)
    for (const [at, { shaded }] of pixels.entries()) {
      // All but some seconds of the three hours had no process, and nothing is drawn there. Sizes know no time.
      if (at % CHARTS === CHARTS - 1) expect(shaded).toBe(0)
      else expect(shaded).toBeGreaterThan(0.5)
    }
    expect(await page.locator('.chart.empty').count()).toBe(0)
    expect(requests).toEqual([url])
    expect(complaints).toEqual([])
    await page.context().close()
  })

  test('draws the lines of every chart, over holes that are no gaps too', async () => {
    // Longer between two snapshots than a bucket is.
    const wave = (values: readonly unknown[]) => values.map((_, at) => (at % 3 === 0 ? 2 + Math.sin(at / 40) : null))
    const waves = series.map(each => ({
      ...each,
      ...{ spread: wave(each.spread), spreadMax: wave(each.spread).map(value => value && value * 2) },
      ...{
        mid: wave(each.mid),
        eventsPerSecond: wave(each.mid),
        tradesPerSecond: wave(each.mid),
        volume: wave(each.mid)
      },
      depths: each.depths.map(depth => ({ ...depth, bids: wave(each.mid), asks: wave(each.mid) }))
    }))
    const { page, complaints } = await show(
      coveragePage({ ...report, instruments: [{ ...report.instruments[0]!, gaps: [] }] }, waves)
    )
    await drawAll(page)
    for (const { inked, shaded } of await pixelsOf(page)) {
      expect(inked).toBeGreaterThan(0.003)
      expect(shaded).toBe(0)
    }
    expect(complaints).toEqual([])
    await page.context().close()
  })

  test('has a cell for each hour with its figures, and a row for each gap', async () => {
    const { page } = await show(coveragePage(report, series))
    expect(new Set(report.instruments.flatMap(({ gaps }) => gaps.map(({ cause }) => cause)))).toEqual(
      new Set(['disconnect', 'killed'])
    )
    for (const [at, { days, hours, gaps }] of report.instruments.entries()) {
      const section = page.locator(`#instrument-${at + 1}`)
      expect(await section.locator('.heat tbody tr').count()).toBe(days.length)
      expect(await section.locator('.heat tbody td:not(.share)').count()).toBe(24 * days.length)
      const cells = await section.locator('.heat td[data-from]').all()
      expect(cells).toHaveLength(hours.length)
      for (const [n, { hour, verdict, slots, events }] of hours.entries()) {
        const title = (await cells[n]!.getAttribute('title'))!
        const time = new Date(hour * HOUR_MS).toISOString().slice(0, 16).replace('T', ' ')
        expect(title).toContain(`${time}–`)
        expect(title).toContain(
          `UTC ${verdict}: ${slots.present} of ${slots.expected} snapshot`.replace(/\B(?=(\d{3})+\b)/g, ',')
        )
        expect(title).toContain(`; ${new Intl.NumberFormat('en').format(events)} event`)
        const texts = { complete: 'complete', missing: '–missing', degraded: String(Math.floor(slots.share * 100)) }
        expect(await cells[n]!.textContent()).toBe(texts[verdict])
        expect((await cells[n]!.getAttribute('class'))!).toMatch(verdict === 'degraded' ? /^d[1-4]$/ : verdict)
      }
      const rows = await section.locator('.gaps tbody tr').allTextContents()
      expect(rows).toHaveLength(gaps.length)
      for (const [n, { cause, fromUs }] of gaps.entries()) {
        expect(rows[n]).toContain(cause + new Date(fromUs / 1000).toISOString().replace('T', ' ').slice(0, -1))
      }
    }
    await page.context().close()
  })

  test('shares the cursor between the charts of an instrument', async () => {
    const { page } = await show(coveragePage(report, series))
    await drawAll(page)
    expect(new Set(await cursorTimes(page))).toEqual(new Set(['–']))
    await page.locator('#instrument-1 [data-chart=mid] .u-over').hover()
    const times = await cursorTimes(page)
    expect(times).toHaveLength(CHARTS - 1)
    expect(new Set(times).size).toBe(1)
    expect(times[0]).toMatch(/^2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d$/)
    expect(new Set(await page.locator('#instrument-2 .u-legend .u-value').allTextContents())).toEqual(new Set(['–']))
    await page.context().close()
  })

  test('zooms all charts of an instrument by dragging, by a gap and by an hour, and back', async () => {
    const { page, complaints } = await show(coveragePage(report, series))
    await drawAll(page)
    const all = await edgesOf(page, 'spread')
    const reset = page.locator('#instrument-1 .reset')
    expect(await reset.isVisible()).toBe(false)

    const over = page.locator('#instrument-1 [data-chart=mid] .u-over')
    const { x, y, width } = (await over.boundingBox())!
    await page.mouse.move(x + width / 2, y + 50)
    await page.mouse.down()
    await page.mouse.move(x + width * 0.75, y + 50, { steps: 4 })
    await page.mouse.up()
    await reset.waitFor()
    for (const chart of ['spread', 'mid', 'depth', 'events', 'trades']) {
      const [from, to] = await edgesOf(page, chart)
      expect(from! > all[0]!, `${chart} from ${from}`).toBe(true)
      expect(to! < all[1]!, `${chart} to ${to}`).toBe(true)
    }
    expect(await page.locator('#instrument-2 .reset').isVisible()).toBe(false)
    await reset.click()
    expect(await edgesOf(page, 'events')).toEqual(all)

    const gap = report.instruments[0]!.gaps[0]!
    await page.locator('#instrument-1 .gaps button').first().click()
    await reset.waitFor()
    const [from, to] = await edgesOf(page, 'trades')
    const time = new Date(gap.fromUs / 1000).toISOString().slice(0, 19).replace('T', ' ')
    expect(from! <= time && time <= to! && to! < all[1]!, `${from} ${time} ${to}`).toBe(true)
    await over.dblclick()
    await reset.waitFor({ state: 'hidden' })

    const cell = page.locator('#instrument-1 .heat td[data-from]').last()
    await cell.click()
    expect(await page.locator('#instrument-1 .detail').textContent()).toBe(await cell.getAttribute('title'))
    await reset.waitFor()
    expect((await edgesOf(page, 'mid'))[0]! > time).toBe(true)
    expect(complaints).toEqual([])
    await page.context().close()
  })

  test('comes to no harm from hostile names', async () => {
    const { page, url, requests, complaints } = await show(hostile())
    await drawAll(page)
    expect(await page.evaluate('window.hacked')).toBeUndefined()
    expect(await page.locator('h2').first().textContent()).toContain('<script>window.hacked = 1</script>')
    expect(await page.title()).toContain(HOSTILE)
    expect(await page.locator('img').count()).toBe(0)
    expect(requests).toEqual([url])
    expect(complaints).toEqual([])
    await page.context().close()
  })

  test('could not send a request or run another script if it wanted to', async () => {
    const heard: string[] = []
    const server = createServer((request, response) => {
      heard.push(request.url!)
      response.end()
    })
    await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
    const target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const { page, complaints } = await show(coveragePage(report, series))
    const attempt = `(async () => {
      const script = document.createElement('script')
      script.textContent = 'window.hacked = 1'
      document.body.append(script)
      const image = new Image()
      const failed = new Promise(done => image.addEventListener('error', () => done('no image')))
      image.src = '${target}/image'
      const answer = await fetch('${target}/fetch').then(() => 'sent', () => 'not sent')
      return [answer, await failed, window.hacked ?? null]
    })()`
    expect(await page.evaluate(attempt)).toEqual(['not sent', 'no image', null])
    expect(heard).toEqual([])
    expect(complaints.filter(text => text.includes('Content Security Policy')).length).toBeGreaterThanOrEqual(3)
    await page.context().close()
    server.close()
  })

  test('is dark where the reader wants that, and changes with it', async () => {
    const { page } = await show(coveragePage(report, series), { colorScheme: 'dark' })
    await page.locator('canvas').first().waitFor()
    const lightness = async () => {
      const colour = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor')
      return Math.max(...colour.match(/\d+/g)!.map(Number))
    }
    // The drawing itself, without what lies behind it.
    const drawing = () => page.evaluate<string>("document.querySelector('canvas').toDataURL()")
    expect(await lightness()).toBeLessThan(60)
    const dark = await drawing()
    await page.emulateMedia({ colorScheme: 'light' })
    await expect.poll(lightness).toBeGreaterThan(200)
    await expect.poll(drawing).not.toBe(dark)
    await page.context().close()
  })

  test('fits a phone, and paper', async () => {
    const { page } = await show(coveragePage(report, series), { viewport: { width: 400, height: 800 } })
    await drawAll(page)
    const widths = () =>
      page.evaluate<number[]>(
        "[document.documentElement, ...document.querySelectorAll('canvas')].map(each => each.scrollWidth || each.clientWidth)"
      )
    expect(Math.max(...(await widths()))).toBe(400)
    await page.setViewportSize({ width: 340, height: 700 })
    await expect.poll(async () => Math.max(...(await widths()))).toBe(340)
    expect((await page.pdf({ format: 'A4' })).subarray(0, 5).toString()).toBe('%PDF-')
    await page.context().close()
  })

  test('draws on paper what nobody has scrolled to', async () => {
    const { page } = await show(coveragePage(report, series), { viewport: { width: 800, height: 300 } })
    expect(await page.locator('.chart canvas').count()).toBeLessThan(CHARTS)
    await page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(await page.locator('.chart canvas').count()).toBe(CHARTS * report.instruments.length)
    await page.context().close()
  })
})
