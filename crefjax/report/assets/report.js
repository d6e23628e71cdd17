'use strict';
const slider = document.getElementById('slider');
const position = document.getElementById('position');
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
    tag.hidden = fade || value === (tag.classList.contains('after-tag') ? 0 : 100);
  }
  const text = value === 0 ? 'full map' : value === 100 ? 'denoised map' : `${value} % denoised`;
  slider.setAttribute('aria-valuetext', text);
  position.textContent = text;
}
slider.addEventListener('input', show);
for (const choice of document.querySelectorAll('input[name=mode]')) choice.addEventListener('change', show);
const edge = document.getElementById('edge');
edge.addEventListener('change', () => document.body.classList.toggle('noedge', !edge.checked));
show();
