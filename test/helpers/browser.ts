import { existsSync } from 'node:fs'
import { type Browser, chromium } from 'playwright-core'

const PLACES = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/opt/google/chrome/chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
  'C:\\Program Files (x86)\\Google\\Chrome\\Application\\chrome.exe'
]
/** It shall do nothing by itself, and need no hardware. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync'
]

/** Where a Chromium is; the environment variable CHROMIUM names another. Undefined: there is none. */
export const CHROMIUM = process.env.CHROMIUM
  ? [process.env.CHROMIUM].find(path => existsSync(path))
  : PLACES.find(path => existsSync(path))
/** What the names of tests that need one end in. */
export const NEEDS_CHROMIUM = CHROMIUM
  ? ''
  : process.env.CHROMIUM
    ? ` (SKIPPED: CHROMIUM names ${process.env.CHROMIUM}, which is not there)`
    : ' (SKIPPED: no Chromium found; CHROMIUM=<path> names one)'

/** Starts a browser without a window. Whoever started it closes it. */
export async function openBrowser(): Promise<Browser> {
  if (CHROMIUM === undefined) throw new Error('there is no Chromium')
  return await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
}
