import { browser } from './stories/browser.js';

browser('pusher-js-7');
